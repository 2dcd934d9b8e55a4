//go:build linux

package libvirtd_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"go.uber.org/goleak"

	"duet/testbed/check"
	"duet/testbed/guest"
	"duet/testbed/guest/record"
	"duet/testbed/libvirtd"
	"duet/testbed/netns"
	"duet/testbed/proc"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// host is a node with its daemon.
type host struct {
	*proc.Node
	*libvirtd.Daemon
}

// cluster makes a LAN and a node with a running daemon for each name, and takes all away after the test.
func cluster(t *testing.T, ctx context.Context, prefix string, names ...string) (*netns.LAN, []host) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to make namespaces")
	}
	for _, tool := range []string{"ip", "nft", "libvirtd", "virsh", "qemu-system-x86_64"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip("needs the command " + tool)
		}
	}
	lan, err := netns.New(prefix, netns.Config{Nodes: names, Networks: []netns.Network{
		{Name: "hb1", Subnet: netip.MustParsePrefix("10.77.1.0/24")},
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := lan.Close(); err != nil {
			t.Error(err)
		}
	})
	hosts := make([]host, len(names))
	started := make(chan error, len(names))
	for i, name := range names {
		hosts[i] = place(t, lan, name)
		go func() { started <- hosts[i].Daemon.Start(ctx) }()
	}
	for range names {
		if err := <-started; err != nil {
			t.Error(err)
		}
	}
	if t.Failed() {
		t.FailNow()
	}
	return lan, hosts
}

// place makes one node and boots it.
func place(t *testing.T, lan *netns.LAN, name string) host {
	t.Helper()
	cfg := libvirtd.Config{Dir: t.TempDir(), Capabilities: filepath.Join(cache(t), "qemu-capabilities")}
	binds, err := libvirtd.Prepare(cfg, name)
	if err != nil {
		t.Fatal(err)
	}
	node := proc.New(proc.Config{Name: name, NetNS: lan.Path(name), Binds: binds, Hosts: lan.Hosts()})
	if err := node.Boot(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := node.Kill(); err != nil {
			t.Error(err)
		}
	})
	return host{node, libvirtd.New(node, cfg)}
}

// cache is a folder that outlives the test, for downloads.
func cache(t *testing.T) string {
	t.Helper()
	dir, err := os.UserCacheDir()
	if err != nil {
		dir = os.TempDir()
	}
	return filepath.Join(dir, "duet-testbed")
}

func deadline(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// vm is a guest with a plain disk of its own.
type vm struct {
	guest.Domain
	xml string
}

func newVM(t *testing.T, ctx context.Context, d guest.Domain) vm {
	t.Helper()
	files, err := guest.Build(ctx, cache(t), "")
	if errors.Is(err, guest.ErrNoKernel) && ctx.Err() == nil {
		t.Skip("needs the guest's kernel: ", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	dir := reachable(t)
	if files, err = files.CopyTo(dir); err != nil {
		t.Fatal(err)
	}
	d.Files, d.Console, d.Disks = files, filepath.Join(dir, "console"), []guest.Disk{{File: filepath.Join(dir, "disk")}}
	if err := os.WriteFile(d.Disks[0].File, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(d.Disks[0].File, 8<<20); err != nil {
		t.Fatal(err)
	}
	v := vm{Domain: d, xml: filepath.Join(dir, "domain.xml")}
	text, err := d.XML()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(v.xml, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return v
}

// reachable is a folder in which the user has a way whom QEMU runs as.
func reachable(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// until reads the console until ok holds.
func (v vm) until(t *testing.T, ctx context.Context, what string, ok func(guest.Log) bool) guest.Log {
	t.Helper()
	for {
		log := v.log(t)
		if ok(log) {
			return log
		}
		select {
		case <-ctx.Done():
			text, _ := os.ReadFile(v.Console)
			t.Fatalf("waited in vain for %s; console:\n%s", what, text)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (v vm) log(t *testing.T) guest.Log {
	t.Helper()
	f, err := os.Open(v.Console)
	if os.IsNotExist(err) {
		return guest.Log{}
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	log, err := guest.ParseConsole(f)
	if err != nil {
		t.Fatal(err)
	}
	return log
}

func (v vm) image(t *testing.T) *record.Image {
	t.Helper()
	f, err := os.Open(v.Disks[0].File)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	im, err := record.Scan(f, 8<<20)
	if err != nil {
		t.Fatal(err)
	}
	return im
}

func (h host) virsh(t *testing.T, ctx context.Context, args ...string) string {
	t.Helper()
	out, err := h.Virsh(ctx, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestTwoDaemonsSideBySide(t *testing.T) {
	ctx := deadline(t)
	began := time.Now()
	_, hosts := cluster(t, ctx, "dtblvd", "alpha", "beta")
	t.Logf("both daemons answer after %v", time.Since(began))
	v := newVM(t, ctx, guest.Domain{Name: "one"})
	hosts[0].virsh(t, ctx, "define", v.xml)
	if got := hosts[0].virsh(t, ctx, "list", "--all", "--name"); got != "one" {
		t.Errorf("alpha has %q", got)
	}
	if got := hosts[1].virsh(t, ctx, "list", "--all", "--name"); got != "" {
		t.Errorf("beta has %q", got)
	}
	for i, name := range []string{"alpha", "beta"} {
		if got := hosts[i].virsh(t, ctx, "hostname"); got != name {
			t.Errorf("%s calls itself %s", name, got)
		}
	}
	if out, err := hosts[0].Run(ctx, "virsh", "-q", "-c", "qemu+tcp://beta/system", "hostname"); err != nil ||
		string(out) != "beta\n" {
		t.Errorf("alpha reaches beta: %q, %v", out, err)
	}
	uri, err := hosts[0].URI()
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(ctx, "virsh", "-q", "-c", uri, "hostname").CombinedOutput(); err != nil ||
		string(out) != "alpha\n" {
		t.Errorf("from outside through %s: %q, %v", uri, out, err)
	}
	if err := hosts[0].Restart(ctx); err != nil {
		t.Fatal(err)
	}
	if got := hosts[0].virsh(t, ctx, "list", "--all", "--name"); got != "one" {
		t.Errorf("alpha has %q after a restart of its daemon", got)
	}
}

func TestGuestOverKills(t *testing.T) {
	ctx := deadline(t)
	_, hosts := cluster(t, ctx, "dtblvg", "alpha")
	alpha := hosts[0]
	v := newVM(t, ctx, guest.Domain{Name: "one", Rate: 100})
	alpha.virsh(t, ctx, "define", v.xml)
	began := time.Now()
	alpha.virsh(t, ctx, "start", "one")
	v.until(t, ctx, "a first record", func(l guest.Log) bool { return l.Acked() > 0 })
	t.Logf("first record %v after virsh start", time.Since(began))
	v.until(t, ctx, "30 records and a flush",
		func(l guest.Log) bool { return l.Acked() >= 30 && len(l.Newest().Flushes) > 0 })

	t.Run("agent answers", func(t *testing.T) {
		got := alpha.virsh(t, ctx, "qemu-agent-command", "--timeout", "5", "one", `{"execute":"guest-ping"}`)
		if got != `{"return":{}}` {
			t.Errorf("guest-ping says %q", got)
		}
	})
	alpha.virsh(t, ctx, "destroy", "one")
	first := v.log(t)
	if im := v.image(t); im.Last < first.Acked() || len(im.Holes) > 0 || len(im.Torn) > 0 {
		t.Errorf("acknowledged up to %d, on the disk: last=%d holes=%v torn=%v", first.Acked(), im.Last, im.Holes, im.Torn)
	}
	alpha.virsh(t, ctx, "start", "one")
	log := v.until(t, ctx, "a second boot that writes", func(l guest.Log) bool {
		return len(l.Boots) == 2 && len(l.Newest().Acks) > 10
	})
	boot := log.Newest()
	if !boot.Scanned || boot.Last < first.Acked() || boot.Holes+boot.Torn+boot.Breaks > 0 || boot.Acks[0] != boot.Last+1 {
		t.Errorf("second boot after %d acknowledged: %+v", first.Acked(), boot)
	}

	t.Run("host dies", func(t *testing.T) {
		before, err := alpha.Processes()
		if err != nil || len(before) < 2 {
			t.Fatalf("daemon and VM expected: %v, %v", before, err)
		}
		if err := alpha.Kill(); err != nil {
			t.Fatal(err)
		}
		for _, p := range before {
			if _, err := os.Stat(fmt.Sprintf("/proc/%d", p.PID)); err == nil {
				t.Errorf("process %v survives its host", p)
			}
		}
		if err := alpha.Boot(); err != nil {
			t.Fatal(err)
		}
		if err := alpha.Daemon.Start(ctx); err != nil {
			t.Fatal(err)
		}
		if got := alpha.virsh(t, ctx, "domstate", "one"); got != "shut off" {
			t.Errorf("after the host came back the VM is %s", got)
		}
		last := v.log(t).Acked()
		if im := v.image(t); im.Last < last || len(im.Holes)+len(im.Torn)+len(im.Breaks) > 0 {
			t.Errorf("acknowledged up to %d, on the disk: last=%d holes=%v torn=%v", last, im.Last, im.Holes, im.Torn)
		}
	})
}

func TestGuestEnds(t *testing.T) {
	tests := []struct {
		name  string
		mode  string
		end   []string // virsh command that makes it end
		state string
		off   bool
	}{
		{"acpi", "writer", []string{"shutdown", "--mode", "acpi"}, "shut off (shutdown)", true},
		{"agent", "idle", []string{"shutdown", "--mode", "agent"}, "shut off (shutdown)", true},
		{"poweroff", "poweroff-after=20", nil, "shut off (shutdown)", true},
		{"panic", "panic-after=20", nil, "crashed (panicked)", false},
	}
	ctx := deadline(t)
	_, hosts := cluster(t, ctx, "dtblve", "alpha", "beta")
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			h := hosts[i%2]
			v := newVM(t, ctx, guest.Domain{Name: tt.name, Mode: tt.mode})
			h.virsh(t, ctx, "define", v.xml)
			h.virsh(t, ctx, "start", tt.name)
			v.until(t, ctx, "scan", func(l guest.Log) bool { return l.Newest().Scanned })
			if tt.end != nil {
				if tt.mode == "writer" {
					v.until(t, ctx, "a record", func(l guest.Log) bool { return l.Acked() > 0 })
				}
				h.virsh(t, ctx, append(tt.end, tt.name)...)
			}
			v.until(t, ctx, "state "+tt.state, func(guest.Log) bool {
				return h.virsh(t, ctx, "domstate", "--reason", tt.name) == tt.state
			})
			log := v.log(t)
			boot := log.Newest()
			if boot.Off != tt.off || len(boot.Errors) > 0 {
				t.Errorf("the guest says %+v", boot)
			}
			if im := v.image(t); tt.mode != "idle" && (im.Last != log.Acked() || !slices.Contains(boot.Flushes, im.Last)) {
				t.Errorf("acknowledged %d, flushes %v, on the disk %d", log.Acked(), boot.Flushes, im.Last)
			}
		})
	}
}

func TestLiveMigration(t *testing.T) {
	ctx := deadline(t)
	_, hosts := cluster(t, ctx, "dtblvm", "alpha", "beta")
	alpha, beta := hosts[0], hosts[1]
	v := newVM(t, ctx, guest.Domain{Name: "one"})
	alpha.virsh(t, ctx, "define", v.xml)
	alpha.virsh(t, ctx, "start", "one")
	v.until(t, ctx, "a record", func(l guest.Log) bool { return l.Acked() > 0 })
	// Both daemons see the same file system, so the image is shared; libvirt cannot know that it is safe.
	alpha.virsh(t, ctx, "migrate", "--live", "--p2p", "--unsafe", "one", "qemu+tcp://beta/system", "--migrateuri",
		"tcp://beta")
	if got := beta.virsh(t, ctx, "domstate", "one"); got != "running" {
		t.Errorf("on beta it is %s", got)
	}
	at := v.log(t).Acked()
	v.until(t, ctx, "records from beta", func(l guest.Log) bool { return l.Acked() > at+10 })
	beta.virsh(t, ctx, "destroy", "one")
	log := v.log(t)
	if len(log.Boots) != 1 || len(log.Newest().Errors) > 0 {
		t.Errorf("the guest noticed: %+v", log)
	}
	for _, bad := range check.History([]check.Console{consoleOf(log)}, diskOf(v.image(t)), check.Acked) {
		t.Error(bad)
	}
}

// consoleOf and diskOf say to package check what package guest read.
func consoleOf(log guest.Log) check.Console {
	c := check.Console{Where: "console"}
	for _, b := range log.Boots {
		c.Boots = append(c.Boots, check.Boot{ID: b.ID, Scanned: b.Scanned, Last: b.Last, Acks: b.Acks, Flushes: b.Flushes})
	}
	return c
}

func diskOf(im *record.Image) check.Disk {
	d := check.Disk{First: im.First(), Last: im.Last, Boots: map[uint64]string{}, Breaks: im.Breaks}
	for n := max(1, im.First()); n <= im.Last; n++ {
		if r, ok := im.Get(n); ok {
			d.Boots[n] = r.Boot.String()
		}
	}
	return d
}
