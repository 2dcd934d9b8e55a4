package scenario

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"duet/testbed/testcluster"
)

// memoryLimit is the promise for a daemon with ten idle modules, bytes.
const memoryLimit = 150 << 20

// TestTenIdleModules: ten VMs on one host cost its daemon little memory.
func TestTenIdleModules(t *testing.T) {
	l := start(t, 30)
	ctx := bounded(t, 4*time.Minute)
	a, b := l.Hosts[testcluster.Alpha], l.Hosts[testcluster.Beta]
	for i := range 10 {
		must(t, a.Protect(ctx, testcluster.VM{Name: fmt.Sprintf("vm%d", i), Size: 16 << 20, Mode: "idle"}))
	}
	for _, h := range []*testcluster.Host{a, b} {
		rss := resident(t, h.Duetd().PID())
		t.Logf("duetd of %s with ten idle modules: %d MiB resident", h.Name, rss>>20)
		if rss > memoryLimit {
			t.Errorf("duetd of %s takes %d MiB, promised are %d", h.Name, rss>>20, memoryLimit>>20)
		}
	}
}

// resident is the memory of a process, bytes.
func resident(t *testing.T, pid int) int64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	must(t, err)
	_, rest, _ := strings.Cut(string(text), "VmRSS:")
	var kib int64
	if _, err := fmt.Sscan(rest, &kib); err != nil {
		t.Fatal(err)
	}
	return kib << 10
}
