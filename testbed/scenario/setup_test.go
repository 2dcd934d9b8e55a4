package scenario

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"duet/testbed/guest"
	"duet/testbed/testcluster"
)

// start makes a formed cluster for one test and shows the daemons' logs if it fails. Clusters of different subnets do
// not see each other; two at once take as long as one after the other, as the guests are emulated.
func start(t *testing.T, subnet int, args ...string) *testcluster.Cluster {
	t.Helper()
	return startWith(t, testcluster.Config{Subnet: subnet}, args...)
}

// needs skips a test where a program is not installed.
func needs(t *testing.T, tool string) {
	t.Helper()
	if _, err := exec.LookPath(tool); err != nil {
		t.Skipf("needs %s: `make deps` installs it", tool)
	}
}

// startWith is start for a cluster that is special in some way.
func startWith(t *testing.T, cfg testcluster.Config, args ...string) *testcluster.Cluster {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: it makes network namespaces and runs libvirtd")
	}
	for _, tool := range []string{"libvirtd", "virsh", "qemu-system-x86_64", "nft", "ip"} {
		needs(t, tool)
	}
	dir, err := os.MkdirTemp("", "duet")
	must(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cfg.Prefix, cfg.Dir, cfg.Cache = fmt.Sprintf("dsc%d", cfg.Subnet), dir, cache()
	if cfg.Bin == "" {
		cfg.Bin = binaries(t)
	}
	l, err := testcluster.New(ctx, cfg)
	must(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			for _, h := range l.Hosts {
				showLog(t, h)
			}
		}
		if err := errors.Join(l.Close(), os.RemoveAll(dir)); err != nil {
			t.Error(err)
		}
	})
	must(t, l.Form(ctx, args...))
	return l
}

func showLog(t *testing.T, h *testcluster.Host) {
	text, err := os.ReadFile(h.Log())
	if err != nil {
		return
	}
	var said []byte // without the heartbeats' chatter
	for line := range bytes.Lines(text) {
		if !bytes.Contains(line, []byte("[DEBUG] memberlist")) {
			said = append(said, line...)
		}
	}
	text = said
	const last = 12 << 10
	if len(text) > last {
		text = text[len(text)-last:]
	}
	t.Logf("duetd of %s:\n%s", h.Name, text)
}

// binaries builds duet and duetd once for all tests of this process, or takes those that were built elsewhere.
func binaries(t *testing.T) string {
	t.Helper()
	if dir := os.Getenv(guest.Prebuilt); dir != "" {
		return dir
	}
	dir, err := built()
	must(t, err)
	return dir
}

var built = sync.OnceValues(func() (string, error) {
	dir := filepath.Join(cache(), "bin")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	build := exec.Command("go", "build", "-tags", "libvirt_dlopen", "-o", dir, "duet/cmd/duet", "duet/cmd/duetd")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build: %w\n%s", err, out)
	}
	return dir, nil
})

func cache() string {
	base, err := os.UserCacheDir()
	if err != nil {
		base = os.TempDir()
	}
	return filepath.Join(base, "duet-testbed")
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func errorf(format string, args ...any) error { return fmt.Errorf(format, args...) }

// bounded is a context for one test.
func bounded(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func read(t *testing.T, l *testcluster.Cluster, vm string) guest.Log {
	t.Helper()
	log, err := l.ReadConsole(vm)
	must(t, err)
	return log
}

func duet(ctx context.Context, t *testing.T, h *testcluster.Host, args ...string) string {
	t.Helper()
	out, err := h.Duet(ctx, args...)
	must(t, err)
	return out
}

// identical has both copies compared while the guest runs.
func identical(ctx context.Context, t *testing.T, primary *testcluster.Host, vm string) {
	t.Helper()
	if out := duet(ctx, t, primary, "volume", "verify", vm+"/vda"); !strings.Contains(out, "identical") {
		t.Errorf("verify of %s: %s", vm, out)
	}
}

func noErrors(t *testing.T, log guest.Log) {
	t.Helper()
	for i, b := range log.Boots {
		if len(b.Errors) != 0 {
			t.Errorf("boot %d of the guest saw errors: %q", i, b.Errors)
		}
	}
}

// apply edits the configuration of a module as an admin would.
func apply(ctx context.Context, t *testing.T, h *testcluster.Host, module string, replace ...string) {
	t.Helper()
	text := strings.NewReplacer(replace...).Replace(duet(ctx, t, h, "config", "show", module))
	path := filepath.Join(t.TempDir(), module+".yaml")
	must(t, os.WriteFile(path, []byte(text), 0o600))
	duet(ctx, t, h, "config", "apply", path)
}

// qemu finds the process of a VM on a host.
func qemu(t *testing.T, h *testcluster.Host, vm string) int {
	t.Helper()
	all, err := h.Node.Processes()
	must(t, err)
	for _, p := range all {
		cmd, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p.PID))
		if err == nil && strings.Contains(string(cmd), "guest="+vm) {
			return p.PID
		}
	}
	t.Fatalf("%s has no QEMU on %s", vm, h.Name)
	return 0
}

// waitAcks waits until the guest has said that n more records were acknowledged.
func waitAcks(ctx context.Context, t *testing.T, l *testcluster.Cluster, vm string, n int) guest.Log {
	t.Helper()
	before, err := l.ReadConsole(vm)
	must(t, err)
	var log guest.Log
	must(t, testcluster.Until(ctx, fmt.Sprintf("%s writes %d more records", vm, n), func() error {
		if log, err = l.ReadConsole(vm); err != nil {
			return err
		}
		if log.Acked() < before.Acked()+uint64(n) {
			return fmt.Errorf("%d acknowledged, %d before", log.Acked(), before.Acked())
		}
		return nil
	}))
	return log
}

// rebooted waits for the next boot of the guest to have scanned its disk and
// for its first write, and fails if a record acknowledged before is missing.
func rebooted(ctx context.Context, t *testing.T, l *testcluster.Cluster, vm string, before guest.Log) {
	t.Helper()
	var log guest.Log
	must(t, testcluster.Until(ctx, vm+" boots again and writes", func() error {
		var err error
		if log, err = l.ReadConsole(vm); err != nil {
			return err
		}
		b := log.Newest()
		if len(log.Boots) <= len(before.Boots) || !b.Scanned || len(b.Acks) == 0 {
			return fmt.Errorf("%d boots, %d before; the newest has %d acknowledged writes", len(log.Boots), len(before.Boots),
				len(b.Acks))
		}
		return nil
	}))
	newest := log.Newest()
	last := log
	last.Boots = log.Boots[:len(log.Boots)-1]
	if acked := last.Acked(); newest.Last < acked {
		t.Errorf("%s: record %d was acknowledged, the disk ends at %d", vm, acked, newest.Last)
	}
	if newest.Holes != 0 || newest.Torn != 0 || newest.Breaks != 0 {
		t.Errorf("%s: the disk has %d holes, %d torn blocks, %d breaks", vm, newest.Holes, newest.Torn, newest.Breaks)
	}
	noErrors(t, log)
}
