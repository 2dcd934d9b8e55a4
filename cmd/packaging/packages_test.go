//go:build linux

package packaging

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
)

var (
	update  = flag.Bool("update", false, "rewrite the golden file; only commit what you understand")
	release = flag.String("release", "", "check the release in this `directory` (make release), not a .deb that is "+
		"built for it")
)

// version is what the tests stamp into the packages they build; newer is the next.
const (
	version = "0.8.0~7+g0123456789ab"
	newer   = "0.8.0~8+gba9876543210"
)

// scratch is gone when the tests end.
var scratch string

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(func() int {
		var err error
		if scratch, err = os.MkdirTemp("", "duet-packages-"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(scratch)
		return m.Run()
	}())
}

// need skips a test without a program that a plain Debian may lack.
func need(t *testing.T, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("needs the command %s (`make deps` or `testbed/deps/install.sh release.txt` brings it)", p)
		}
	}
}

// output runs a program, which must succeed, and returns what it printed.
func output(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// build is build.sh; env is added to the test's own.
func build(root, version, dist, arches, formats string, env ...string) error {
	cmd := exec.Command(filepath.Join(root, "cmd/packaging/build.sh"), version, dist, arches, formats)
	cmd.Env = append(os.Environ(), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", cmd, err, out)
	}
	return nil
}

// dist returns the directory with the packages to check: the release, or a .rpm and a .deb for this computer, built
// once for all tests with the flags of the other tests' programs, so that it is done in seconds.
func dist(t *testing.T) string {
	t.Helper()
	if *release != "" {
		return *release
	}
	need(t, "dpkg-deb")
	if out, err := exec.Command("go", "mod", "download", "-modfile=tools.mod").CombinedOutput(); err != nil {
		t.Skipf("nfpm cannot be fetched: %v\n%s", err, out)
	}
	if err := once(); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(scratch, "dist")
}

var once = sync.OnceValue(func() error {
	return build("../..", version, filepath.Join(scratch, "dist"), runtime.GOARCH, "rpm deb", "BUILDFLAGS=")
})

// deb returns the .deb to check.
func deb(t *testing.T) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dist(t), "duet_*_"+runtime.GOARCH+".deb"))
	if err != nil || len(found) != 1 {
		t.Fatalf("want one .deb: %v, %v", found, err)
	}
	return found[0]
}

// unpacked returns a directory with the files of the .deb; DEBIAN in it holds the scripts.
func unpacked(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	output(t, "dpkg-deb", "--raw-extract", deb(t), dir)
	return dir
}

var commandPage = regexp.MustCompile(`/duet-[a-z-]+\.1\.gz$`)

// TestContents compares owners, modes and names in the .deb, and its control file, with testdata. A page of the manual
// stands for all that are made from the commands.
func TestContents(t *testing.T) {
	file := deb(t)
	var got []string
	pages := 0
	for line := range strings.Lines(output(t, "dpkg-deb", "--contents", file)) {
		f := strings.Fields(line) // mode, owner, size, day, time, name
		if commandPage.MatchString(f[5]) {
			if pages++; pages > 1 {
				continue
			}
			f[5] = commandPage.ReplaceAllString(f[5], "/duet-*.1.gz")
		}
		got = append(got, fmt.Sprintf("%s %s %s\n", f[0], f[1], f[5]))
	}
	if pages < 30 {
		t.Errorf("there are %d pages of commands only", pages)
	}
	control := output(t, "dpkg-deb", "--field", file)
	for _, change := range []string{`(?m)^Installed-Size: .*\n`, `(?m)^Version: .*\n`, `(?m)^Architecture: .*\n`} {
		control = regexp.MustCompile(change).ReplaceAllString(control, "")
	}
	conffiles := output(t, "dpkg-deb", "--info", file, "conffiles")
	golden(t, "deb.txt", strings.Join(got, "")+"\n"+control+"\nconffiles:\n"+conffiles)
}

// golden compares got with a file in testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs (-update rewrites it); now:\n%s", path, got)
	}
}

// TestProgramsSayWhatTheyAre: the version is the package's, and what no other start can mend has its exit code.
func TestProgramsSayWhatTheyAre(t *testing.T) {
	root := unpacked(t)
	want := strings.TrimSpace(output(t, "dpkg-deb", "--field", deb(t), "Version"))
	if got := output(t, filepath.Join(root, "usr/bin/duet"), "--version"); got != "duet "+want+"\n" {
		t.Errorf("duet --version says %q, want %s", got, want)
	}
	duetd := filepath.Join(root, "usr/sbin/duetd")
	if got := output(t, duetd, "--version"); got != want+"\n" {
		t.Errorf("duetd --version says %q, want %s", got, want)
	}
	empty := t.TempDir()
	for args, code := range map[string]int{
		"--no-such-flag":         64,
		"serve":                  64,
		"witness --no-such-flag": 64,
		"--hypervisor test:///default --socket " + empty + "/s --run " + empty + "/r --dir " + empty: 78,
	} {
		cmd := exec.Command(duetd, strings.Fields(args)...)
		if out, _ := cmd.CombinedOutput(); cmd.ProcessState.ExitCode() != code {
			t.Errorf("duetd %s ends with %d, want %d:\n%s", args, cmd.ProcessState.ExitCode(), code, out)
		}
	}
	if made, err := os.ReadDir(empty); err != nil || len(made) > 0 {
		t.Errorf("without a cluster duetd made %v, %v", made, err)
	}
}

// TestVersions: commits sort between the releases, for dpkg as for git.
func TestVersions(t *testing.T) {
	need(t, "git", "dpkg")
	dir := filepath.Join(t.TempDir(), "tree")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"version.sh", "changelog"} {
		output(t, "cp", name, dir)
	}
	git := func(args ...string) {
		output(t, "git", append([]string{"-C", dir, "-c", "user.name=x", "-c", "user.email=x@duet.example"}, args...)...)
	}
	said := func() string { return strings.TrimSpace(output(t, filepath.Join(dir, "version.sh"))) }
	order := []string{said()} // no history
	next, _, _ := strings.Cut(order[0], "~")
	git("init", "-q")
	for _, message := range []string{"one", "two"} {
		git("add", ".")
		git("commit", "-q", "--allow-empty", "-m", message)
		order = append(order, said())
	}
	if err := os.WriteFile(filepath.Join(dir, "changelog"), []byte("duet ("+next+") unstable\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	order = append(order, said())
	git("commit", "-q", "-a", "-m", "three")
	git("tag", "v"+next)
	order = append(order, said())
	if order[0] != next+"~0" || !strings.HasSuffix(order[3], "+changes") || order[4] != next {
		t.Errorf("versions are %q", order)
	}
	for pair := range slices.Chunk(slices.Concat(order[:2], order[1:3], order[2:4], order[3:5]), 2) {
		if err := exec.Command("dpkg", "--compare-versions", pair[0], "lt", pair[1]).Run(); err != nil {
			t.Errorf("%s is not below %s for dpkg", pair[0], pair[1])
		}
	}
}
