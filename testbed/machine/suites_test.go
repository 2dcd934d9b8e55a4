//go:build linux

package machine

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// suites are the tests whose outcome depends on the release: those with a real libvirt and QEMU.
var suites = []struct{ pkg, only string }{
	{"./vmmanager/libvirt", "."},
	{"./testbed/scenario", "DaemonIsKilled$|DaemonIsUpgraded|DaemonIsKilledDuringProtect"},
}

// TestSuitesOnTheOtherReleases runs them on the supported releases that this computer does not have; on its own they
// run as the tests that they are.
func TestSuitesOnTheOtherReleases(t *testing.T) {
	needs(t)
	own, _ := os.ReadFile("/etc/os-release") // a computer without it is no Debian: all releases are others
	for _, r := range Releases {
		version := fmt.Sprintf("\nVERSION_ID=\"%d\"\n", r)
		if strings.Contains(string(own), "\nID=debian\n") && strings.Contains(string(own), version) {
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

// failures are the lines that the failed tests have printed, those of the innermost first: a whole suite of passed ones
// around them is more than CI keeps.
func failures(said string) string {
	var failed []string
	for _, m := range verdict.FindAllStringSubmatch(said, -1) {
		failed = append(failed, m[1])
	}
	slices.SortStableFunc(failed, func(a, b string) int { return strings.Count(b, "/") - strings.Count(a, "/") })
	lines := make(map[string][]string)
	of, rest := "", "" // whose lines follow; those of no test, as a panic's
	for line := range strings.Lines(said) {
		switch m := speaks.FindStringSubmatch(line); {
		case m != nil:
			of = m[1]
		case of == "" || strings.HasPrefix(line, "panic: ") || strings.HasPrefix(line, "fatal error: "):
			of, rest = "", rest+line
		case !strings.Contains(line, "level=DEBUG"):
			lines[of] = append(lines[of], line)
		}
	}
	var b strings.Builder
	for _, name := range failed {
		fmt.Fprintf(&b, "%s:\n%s", name, strings.Join(lines[name], ""))
	}
	return b.String() + rest
}

var (
	verdict = regexp.MustCompile(`(?m)^ *--- FAIL: (\S+)`)
	speaks  = regexp.MustCompile(`^ *(?:=== \w+ +|--- \w+: )(\S+)`)
)

func passes(ctx context.Context, t *testing.T, tests *Tests, pkg, only string) {
	out, err := os.Create(filepath.Join(t.TempDir(), "output"))
	must(t, err)
	defer out.Close()
	failed := tests.Run(ctx, pkg, []string{"-test.v", "-test.timeout=10m", "-test.run=" + only}, out, out)
	said, err := os.ReadFile(out.Name())
	must(t, err)
	if failed != nil {
		t.Errorf("%v\n%s", failed, failures(string(said)))
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

func TestFailures(t *testing.T) {
	const said = `=== RUN   TestOne
    one.go:1: quiet
--- PASS: TestOne (0.00s)
=== RUN   TestTwo
=== RUN   TestTwo/a
    two.go:7: level=DEBUG not this
    two.go:8: this
=== RUN   TestTwo/b
    two.go:9: nor this
=== NAME  TestTwo
    two.go:3: and the outer
--- FAIL: TestTwo (0.00s)
    --- FAIL: TestTwo/a (0.00s)
    --- PASS: TestTwo/b (0.00s)
panic: at the end
`
	const want = "TestTwo/a:\n    two.go:8: this\nTestTwo:\n    two.go:3: and the outer\npanic: at the end\n"
	if got := failures(said); got != want {
		t.Errorf("%q\nwanted\n%q", got, want)
	}
}
