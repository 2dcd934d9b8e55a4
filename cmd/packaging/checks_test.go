//go:build linux

package packaging

import (
	"compress/gzip"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// exposed is what `systemd-analyze security` may say of a unit at most, in tenths; each thing that is left out has its
// reason in the unit.
var exposed = map[string]string{"duetd": "40", "duet-guard": "22", "duet-apps": "96", "duetd-witness": "12"}

// TestUnits: systemd understands every line, and what a unit names is in the package.
func TestUnits(t *testing.T) {
	root := unpacked(t)
	named := regexp.MustCompile(`(?m)^(?:ExecStart|EnvironmentFile)=-?(/\S+)`)
	for unit, threshold := range exposed {
		path := filepath.Join(root, "usr/lib/systemd/system", unit+".service")
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		files := named.FindAllStringSubmatch(string(text), -1)
		if len(files) != 2 || regexp.MustCompile(`@[A-Z]+@`).Match(text) {
			t.Errorf("%s names %q", unit, files)
		}
		for _, f := range files {
			if _, err := os.Stat(filepath.Join(root, f[1])); err != nil {
				t.Errorf("%s names a file that the package has not: %v", unit, err)
			}
		}
		t.Run(unit, func(t *testing.T) {
			need(t, "systemd-analyze")
			here := filepath.Join(t.TempDir(), unit+".service") // its program is not installed
			moved := strings.ReplaceAll(string(text), "ExecStart=", "ExecStart="+root)
			if err := os.WriteFile(here, []byte(moved), 0o644); err != nil {
				t.Fatal(err)
			}
			if said := output(t, "systemd-analyze", "--man=no", "verify", here); said != "" {
				t.Errorf("systemd says:\n%s", said)
			}
			output(t, "systemd-analyze", "security", "--offline=true", "--threshold="+threshold, path)
		})
	}
}

// page returns the text of a page.
func page(t *testing.T, path string) string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestManual: every page renders without a warning, and duetd's own has every flag.
func TestManual(t *testing.T) {
	root := unpacked(t)
	pages, err := filepath.Glob(filepath.Join(root, "usr/share/man/man?/*.gz"))
	if err != nil || len(pages) == 0 {
		t.Fatal("no pages: ", err)
	}
	t.Run("groff", func(t *testing.T) {
		need(t, "groff")
		for _, p := range pages {
			cmd := exec.Command("groff", "-K", "utf8", "-ww", "-man", "-Tutf8", "-z")
			cmd.Stdin = strings.NewReader(page(t, p))
			if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
				t.Errorf("%s: %v\n%s", filepath.Base(p), err, out)
			}
		}
	})
	text := page(t, filepath.Join(root, "usr/share/man/man8/duetd.8.gz"))
	for _, args := range [][]string{{"--help"}, {"witness", "--help"}, {"guard", "--help"}, {"apps", "--help"}} {
		help := output(t, filepath.Join(root, "usr/sbin/duetd"), args...)
		flags := regexp.MustCompile(`(?m)^  -([a-z]+)`).FindAllStringSubmatch(help, -1)
		if len(flags) < 2 {
			t.Errorf("duetd %v shows the flags %q", args, flags)
		}
		for _, f := range flags {
			if !strings.Contains(text, `\-\-`+f[1]) {
				t.Errorf("duetd(8) does not know --%s", f[1])
			}
		}
	}
}

// TestScripts: every shell can read what runs at installation.
func TestScripts(t *testing.T) {
	for _, pattern := range []string{"*.sh", "deb/*", "rpm/*"} {
		found, err := filepath.Glob(pattern)
		if err != nil || len(found) == 0 {
			t.Fatalf("%s: %v", pattern, err)
		}
		output(t, "sh", append([]string{"-n", "--"}, found...)...)
		t.Run(filepath.Dir(pattern), func(t *testing.T) {
			need(t, "shellcheck")
			output(t, "shellcheck", append([]string{"--shell=sh"}, found...)...)
		})
	}
}

// TestAppArmor: the parser takes the rules, and they reach the sockets and nothing else.
func TestAppArmor(t *testing.T) {
	need(t, "apparmor_parser")
	root := unpacked(t)
	profile := filepath.Join(t.TempDir(), "profile")
	text := "profile libvirt-x {\n  include <abstractions/libvirt-qemu.d>\n}\n"
	if err := os.WriteFile(profile, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	args := []string{"--skip-kernel-load", "--skip-cache", "--base", filepath.Join(root, "etc/apparmor.d")}
	output(t, "apparmor_parser", append(args, profile)...)
	whole := output(t, "apparmor_parser", append(args, "--preprocess", profile)...)
	rules := regexp.MustCompile(`(?m)^\s*(/.*)$`).FindAllString(whole, -1)
	if len(rules) != 1 || strings.TrimSpace(rules[0]) != "/run/duet/volumes/** rw," {
		t.Errorf("the rules are %q", rules)
	}
}

// TestLintian: Debian's own checks find nothing, so there is no list of what may be.
func TestLintian(t *testing.T) {
	need(t, "lintian")
	if *release == "" {
		t.Skip("programs of the tests are not hardened as a release is: make release runs it")
	}
	debs, err := filepath.Glob(filepath.Join(*release, "*.deb"))
	if err != nil || len(debs) == 0 {
		t.Fatal("no packages: ", err)
	}
	args := []string{"--no-cfg", "--allow-root", "--fail-on=error,warning"}
	if said := output(t, "lintian", append(args, debs...)...); said != "" {
		t.Errorf("lintian says:\n%s", said)
	}
}
