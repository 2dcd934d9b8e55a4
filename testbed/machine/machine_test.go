//go:build linux

package machine

import (
	"context"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"duet/testbed/netns"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// needs skips a test where machines cannot be.
func needs(t *testing.T, tools ...string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: it makes roots, mounts and namespaces")
	}
	for _, tool := range append(tools, "debootstrap", "unshare") {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("needs %s: `make deps` installs it", tool)
		}
	}
}

func cache(t *testing.T) string {
	t.Helper()
	dir, err := os.UserCacheDir()
	if err != nil {
		dir = os.TempDir()
	}
	return filepath.Join(dir, "duet-testbed")
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func do(ctx context.Context, t *testing.T, m Machine, command string) string {
	t.Helper()
	out, err := Do(ctx, m, command)
	must(t, err)
	return out
}

// TestContainers: what a machine is promised to be, on both releases.
func TestContainers(t *testing.T) {
	needs(t, "systemd-nspawn", "nsenter", "nft", "ip")
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute) // the first run makes the images
	defer cancel()
	site, err := NewSite(ctx, Config{
		Prefix: "dmt", Cache: cache(t),
		Networks: []netns.Network{{Name: "lan", Subnet: netip.MustParsePrefix("10.79.1.0/24")}},
		Machines: []Spec{{"old", Debian12}, {"new", Debian13}},
	})
	must(t, err)
	t.Cleanup(func() {
		if err := site.Close(); err != nil {
			t.Error(err)
		}
	})
	old, young := site.Machines["old"], site.Machines["new"]
	for _, m := range []Machine{old, young} {
		began := time.Now()
		must(t, m.Boot(ctx))
		t.Logf("%s is up after %v", m.Name(), time.Since(began))
	}
	if v := do(ctx, t, old, ". /etc/os-release; echo $VERSION_ID"); v != "12" {
		t.Errorf("old is Debian %s", v)
	}
	if v := do(ctx, t, young, ". /etc/os-release; echo $VERSION_ID; hostname"); v != "13\nnew" {
		t.Errorf("new is Debian %s", v)
	}
	do(ctx, t, old, "ping -c1 -W2 new || getent hosts new && cat </dev/null >/dev/tcp/new/22 || true")
	for _, m := range []Machine{old, young} {
		if failed := do(ctx, t, m, "systemctl --failed --no-legend --plain"); failed != "" {
			t.Errorf("%s: failed units: %s", m.Name(), failed)
		}
		t.Log(do(ctx, t, m, "systemctl is-system-running; systemctl list-jobs; virsh -c qemu:///system version; ps ax | tail -30; systemd-cgls | tail -60; dpkg --audit; ip a"))
	}
	boots := do(ctx, t, old, "cat /proc/sys/kernel/random/boot_id")
	do(ctx, t, old, "echo kept >/root/file; sync; touch /run/gone")
	began := time.Now()
	must(t, old.Reboot(ctx))
	t.Logf("old has rebooted after %v", time.Since(began))
	if again := do(ctx, t, old, "cat /proc/sys/kernel/random/boot_id"); again == boots {
		t.Error("old has the same boot id after a reboot")
	}
	if out := do(ctx, t, old, "cat /root/file; ls /run/gone 2>&1 || :"); !strings.HasPrefix(out, "kept\n") || !strings.Contains(out, "No such file") {
		t.Errorf("after a reboot: %s", out)
	}
	began = time.Now()
	must(t, young.Kill())
	t.Logf("new is dead after %v", time.Since(began))
	if _, err := young.Run(ctx, "true"); err == nil {
		t.Error("a dead machine ran a command")
	}
	must(t, young.Boot(ctx))
}
