//go:build linux

package machine

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// suites are the tests whose outcome depends on the release: those with a real libvirt and QEMU.
var suites = []struct{ pkg, only string }{
	{"./vmmanager/libvirt", "."},
	{"./testbed/scenario", "DaemonIsKilled$|DaemonIsUpgraded|DaemonIsKilledDuringProtect"},
}

// TestSuitesOnTheOtherReleases runs them on the supported releases that this computer does not have; on its own they run
// as the tests that they are.
func TestSuitesOnTheOtherReleases(t *testing.T) {
	needs(t)
	own, _ := os.ReadFile("/etc/os-release") // a computer without it is no Debian: all releases are others
	for _, r := range Releases {
		if strings.Contains(string(own), "\nID=debian\n") && strings.Contains(string(own), fmt.Sprintf("\nVERSION_ID=\"%d\"\n", r)) {
			continue
		}
		t.Run(r.String(), func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute) // the first run makes the image
			defer cancel()
			module, err := filepath.Abs("../..")
			must(t, err)
			tests, err := NewTests(ctx, cache(t), module, r)
			must(t, err)
			for _, s := range suites {
				t.Run(filepath.Base(s.pkg), func(t *testing.T) { passes(ctx, t, tests, s.pkg, s.only) })
			}
		})
	}
}

// lacking finds tests that were skipped because the image lacks something.
var lacking = regexp.MustCompile(`(?m)^.*: needs .*$`)

func passes(ctx context.Context, t *testing.T, tests *Tests, pkg, only string) {
	out, err := os.Create(filepath.Join(t.TempDir(), "output"))
	must(t, err)
	defer out.Close()
	failed := tests.Run(ctx, pkg, []string{"-test.v", "-test.timeout=10m", "-test.run=" + only}, out, out)
	said, err := os.ReadFile(out.Name())
	must(t, err)
	if failed != nil {
		t.Errorf("%v\n%s", failed, said)
	}
	if skipped := lacking.FindAll(said, -1); skipped != nil {
		t.Errorf("tests were skipped: %s", skipped)
	}
	if n := strings.Count(string(said), "--- PASS: "); n < 3 {
		t.Errorf("%d tests ran:\n%s", n, said)
	} else {
		t.Logf("%d tests passed", n)
	}
}
