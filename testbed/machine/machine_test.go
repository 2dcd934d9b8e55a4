//go:build linux

package machine

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
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

// site makes machines for one test.
func site(ctx context.Context, t *testing.T, prefix string, third byte, specs ...Spec) *Site {
	t.Helper()
	s, err := NewSite(ctx, Config{
		Prefix: prefix, Cache: cache(t), Machines: specs,
		Networks: []netns.Network{{Name: "lan", Subnet: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 79, third, 0}), 24)}},
	})
	must(t, err)
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// TestContainers: what a machine is promised to be, on both releases.
func TestContainers(t *testing.T) {
	needs(t, "systemd-nspawn", "nsenter", "nft", "ip")
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute) // the first run makes the images
	defer cancel()
	s := site(ctx, t, "dmt", 1, Spec{Name: "old", Release: Debian12}, Spec{Name: "new", Release: Debian13})
	for name, version := range map[string]string{"old": "12", "new": "13"} {
		m := s.Machines[name]
		must(t, m.Boot(ctx))
		if got := do(ctx, t, m, ". /etc/os-release; echo $VERSION_ID; hostname"); got != version+"\n"+name {
			t.Errorf("%s is %s", name, got)
		}
	}
	for _, m := range s.Machines {
		isReal(ctx, t, m)
		lives(ctx, t, m)
	}
	// The containers are beside each other and know nothing of it.
	old, young := s.Machines["old"], s.Machines["new"]
	do(ctx, t, old, "systemd-run --quiet --unit=mine sleep 1000")
	if r, err := young.Run(ctx, "systemctl is-active mine"); err != nil || r.Code == 0 {
		t.Errorf("a unit of old is known on new: %v %v", r, err)
	}
	if links := do(ctx, t, old, "ls /sys/class/net"); links != "lan\nlo" {
		t.Errorf("old sees the network cards %q", links)
	}
	do(ctx, t, old, "ping -q -c 1 -W 5 new")
	do(ctx, t, young, "ping -q -c 1 -W 5 "+s.LAN.Addr(netns.Gateway, "lan").String())
}

// isReal: systemd is up, every package is configured, libvirt answers as it does on an admin's host.
func isReal(ctx context.Context, t *testing.T, m Machine) {
	t.Helper()
	for command, want := range map[string]string{
		"systemctl is-system-running":                     "running",
		"systemctl --failed --no-legend --plain":          "",
		"dpkg --audit":                                    "",
		"ps -o comm= -p 1":                                "systemd",
		"grep -c . /etc/machine-id":                       "1",
		"virsh -c qemu:///system list --all --name":       "",
		"grep -v '^#' /etc/libvirt/qemu.conf | grep .||:": "",
	} {
		if got := do(ctx, t, m, command); got != want {
			t.Errorf("%s# %s: %q, want %q", m.Name(), command, got, want)
		}
	}
}

// lives: files are there after a reboot in order, and synced ones after a loss of power; what is in memory never is.
func lives(ctx context.Context, t *testing.T, m Machine) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "pushed")
	must(t, os.WriteFile(file, []byte("pushed\n"), 0o700))
	must(t, m.Push(ctx, file, "/root/some/where"))
	if got := do(ctx, t, m, "cat /root/some/where; stat -c %a:%U /root/some/where"); got != "pushed\n700:root" {
		t.Errorf("%s: the file is %q", m.Name(), got)
	}
	const bootID = "cat /proc/sys/kernel/random/boot_id"
	for _, again := range []func() error{
		func() error { return m.Reboot(ctx) },
		func() error { return errors.Join(m.Kill(), m.Kill(), m.Boot(ctx)) },
	} {
		before := do(ctx, t, m, bootID)
		do(ctx, t, m, "echo kept >/root/file; sync; touch /run/gone")
		must(t, again())
		if do(ctx, t, m, bootID) == before {
			t.Errorf("%s has the same boot id as before", m.Name())
		}
		if got := do(ctx, t, m, "cat /root/file; test ! -e /run/gone"); got != "kept" {
			t.Errorf("%s has kept %q", m.Name(), got)
		}
	}
	if r, err := m.Run(ctx, "echo out; echo err >&2; exit 7"); err != nil || r != (Result{"out\nerr", 7}) {
		t.Errorf("%s: a command that fails is %v, %v", m.Name(), r, err)
	}
	must(t, m.Kill())
	if _, err := m.Run(ctx, "true"); err == nil {
		t.Errorf("%s ran a command after the loss of its power", m.Name())
	}
	must(t, m.Boot(ctx))
}
