package scenario

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"duet/testbed/testcluster"
)

// writer is an application of an ordinary kind: it appends numbered lines to a file, makes each durable, and only then
// tells a client. Its lines are $1, what it told is $2.
const writer = `#!/bin/sh
n=$(wc -l <"$1" 2>/dev/null || echo 0)
while :; do
	n=$((n+1))
	echo "$n" >>"$1" && sync "$1" && echo "$n" >>"$2" || exit 1
done
`

// TestApplicationFailsOver: an application with a directory that exists, an address and a command is installed. Its
// daemon is killed, its host is killed, the host comes back, it is moved: each time it goes on where the right is, with
// all that it had made durable, under its address.
func TestApplicationFailsOver(t *testing.T) {
	needs(t, "mkfs.ext4")
	const subnet = 75
	l := start(t, subnet)
	ctx := bounded(t, 3*time.Minute)
	a, b := l.Hosts[testcluster.Alpha], l.Hosts[testcluster.Beta]
	dir := t.TempDir()
	files, told, script := filepath.Join(dir, "files"), filepath.Join(dir, "told"), filepath.Join(dir, "writer")
	must(t, os.WriteFile(script, []byte(writer), 0o755))
	must(t, os.MkdirAll(files, 0o750))
	must(t, os.WriteFile(filepath.Join(files, "before"), []byte("was here\n"), 0o640))
	address := fmt.Sprintf("10.77.%d.50", subnet)
	config := filepath.Join(dir, "app.yaml")
	must(t, os.WriteFile(config, fmt.Appendf(nil, `name: app
kind: mirror
nodes: [alpha, beta]
mirror:
  directories: [%s]
  addresses: [%s/24]
  run:
    - name: writer
      start: setsid %s %s/log %s >/dev/null 2>&1 &
      stop: "true"
policy: {arbitration: available}
`, files, address, script, files, told), 0o600))

	duet(ctx, t, a, "module", "install", config, "--size", "64M")
	must(t, a.Is(ctx, "app", "PRIM"))
	must(t, b.Is(ctx, "app", "SECOND"))
	progress(ctx, t, told, 20)
	answers(ctx, t, l, subnet, address)
	if text := inside(ctx, t, a, filepath.Join(files, "before")); text != "was here\n" {
		t.Errorf("what was there before is %q", text)
	}

	// The daemon is killed: a pause.
	must(t, a.Duetd().Kill())
	<-a.Duetd().Done()
	must(t, a.StartDuetd(ctx))
	must(t, a.Whole(ctx, "app"))
	progress(ctx, t, told, 20)

	// Somebody takes its address away: it is back.
	if _, err := a.Node.Run(ctx, "ip", "addr", "flush", "to", address+"/32"); err != nil {
		t.Fatal(err)
	}
	answers(ctx, t, l, subnet, address)

	// The process behind its block device is killed: it is started anew, with all that it had made durable.
	pid, err := a.Node.Run(ctx, "pgrep", "-f", "duetd disk ")
	must(t, err)
	if _, err := a.Node.Run(ctx, "kill", "-9", strings.TrimSpace(string(pid))); err != nil {
		t.Fatal(err)
	}
	progress(ctx, t, told, 20)
	complete(t, inside(ctx, t, a, filepath.Join(files, "log")), told)

	// The host is killed: beta goes on.
	must(t, a.Kill())
	must(t, b.Is(ctx, "app", "ALONE"))
	progress(ctx, t, told, 20)
	answers(ctx, t, l, subnet, address)
	complete(t, inside(ctx, t, b, filepath.Join(files, "log")), told)

	// It comes back and follows.
	must(t, a.Boot(ctx))
	must(t, a.StartDuetd(ctx))
	must(t, b.Whole(ctx, "app"))

	// A planned move.
	duet(ctx, t, b, "swap", "app")
	must(t, a.Is(ctx, "app", "PRIM"))
	progress(ctx, t, told, 20)
	answers(ctx, t, l, subnet, address)
	complete(t, inside(ctx, t, a, filepath.Join(files, "log")), told)
	duet(ctx, t, a, "stop", "app")
	st, err := a.On(ctx, "app")
	must(t, err)
	if st.Role != "STOP" {
		t.Errorf("after the stop it is %s", st.Role)
	}
	if out, err := a.Node.Run(ctx, "findmnt", files); err == nil {
		t.Errorf("after the stop the directory is still there: %s", out)
	}
	duet(ctx, t, a, "module", "uninstall", "app")
	for _, h := range []*testcluster.Host{a, b} {
		if out := duet(ctx, t, h, "status", "--json"); strings.Contains(out, `"app"`) {
			t.Errorf("after the uninstall %s still knows it", h.Name)
		}
	}
}

// inside is a file as a host sees it.
func inside(ctx context.Context, t *testing.T, h *testcluster.Host, path string) string {
	t.Helper()
	out, err := h.Node.Run(ctx, "cat", path)
	must(t, err)
	return string(out)
}

// progress waits until the client was told so many lines more.
func progress(ctx context.Context, t *testing.T, told string, more int) {
	t.Helper()
	first := count(told)
	for count(told) < first+more {
		select {
		case <-ctx.Done():
			t.Fatalf("the application told %d lines and no more", count(told))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func count(path string) int {
	text, _ := os.ReadFile(path)
	return strings.Count(string(text), "\n")
}

// complete fails if a line that the client was told is missing.
func complete(t *testing.T, log, told string) {
	t.Helper()
	have := map[string]bool{}
	for line := range strings.Lines(log) {
		have[strings.TrimSpace(line)] = true
	}
	text, err := os.ReadFile(told)
	must(t, err)
	for line := range strings.Lines(string(text)) {
		n := strings.TrimSpace(line)
		if _, err := strconv.Atoi(n); err == nil && !have[n] {
			t.Errorf("line %s was acknowledged and is gone", n)
		}
	}
}

// answers fails unless a third computer reaches the address.
func answers(ctx context.Context, t *testing.T, l *testcluster.Cluster, subnet int, address string) {
	t.Helper()
	for {
		out, err := exec.CommandContext(ctx, "ip", "netns", "exec", fmt.Sprintf("dsc%d-%s", subnet, testcluster.Witness),
			"ping", "-c", "1", "-W", "1", address).CombinedOutput()
		if err == nil {
			return
		}
		if ctx.Err() != nil {
			t.Fatalf("%s does not answer: %v\n%s", address, err, out)
		}
	}
}
