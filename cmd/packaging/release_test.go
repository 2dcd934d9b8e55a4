//go:build linux

package packaging

import (
	"bytes"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// needRelease skips what takes a release to check.
func needRelease(t *testing.T) {
	t.Helper()
	if *release == "" {
		t.Skip("compiles everything anew, for two architectures: make release runs it")
	}
}

// files returns those of the release that match the pattern, at least one.
func files(t *testing.T, pattern string) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(*release, pattern))
	if err != nil || len(found) == 0 {
		t.Fatalf("no %s in the release: %v", pattern, err)
	}
	return found
}

// releaseVersion is in the name of each file.
func releaseVersion(t *testing.T) string {
	t.Helper()
	version, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(files(t, "duet_*_amd64.deb")[0]), "duet_"), "_")
	return version
}

// TestReproducible: the same files in another directory, by a compiler without a cache, give the same bytes.
func TestReproducible(t *testing.T) {
	needRelease(t)
	need(t, "git")
	tree, dist := filepath.Join(t.TempDir(), "elsewhere"), t.TempDir()
	list := strings.Split(strings.TrimSuffix(output(t, "git", "-C", "../..", "ls-files", "-z"), "\x00"), "\x00")
	for _, name := range list {
		from, to := filepath.Join("../..", name), filepath.Join(tree, name)
		b, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(from)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to, b, info.Mode()); err != nil {
			t.Fatal(err)
		}
	}
	// What the tree's history said is told to a tree without one.
	epoch := strings.TrimSpace(output(t, "git", "log", "-1", "--format=%ct"))
	env := []string{"RELEASE=1", "GOCACHE=" + t.TempDir(), "SOURCE_DATE_EPOCH=" + epoch}
	if err := build(tree, releaseVersion(t), dist, "amd64 arm64", "deb rpm", env...); err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile(filepath.Join(*release, "SHA256SUMS"))
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join(dist, "SHA256SUMS"))
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != string(want) || bytes.Count(got, []byte("\n")) != 8 {
		t.Errorf("built elsewhere:\n%swant\n%s", got, want)
	}
}

// TestSums: SHA256SUMS is of every file of the release.
func TestSums(t *testing.T) {
	needRelease(t)
	cmd := exec.Command("sha256sum", "--check", "--strict", "SHA256SUMS")
	cmd.Dir = *release
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if made := files(t, `duet[_\-]*`); len(made) != bytes.Count(out, []byte(": OK\n")) {
		t.Errorf("of %q are checked:\n%s", made, out)
	}
}

// TestArchive: the programs are for the architecture that the name says, and the bill of materials is theirs.
func TestArchive(t *testing.T) {
	needRelease(t)
	for arch, machine := range map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64} {
		name, dir := "duet-"+releaseVersion(t)+"-linux-"+arch, t.TempDir()
		output(t, "tar", "-C", dir, "-xzf", filepath.Join(*release, name+".tar.gz"))
		b, err := os.ReadFile(filepath.Join(*release, name+".cdx.json"))
		if err != nil {
			t.Fatal(err)
		}
		var bill struct {
			BOMFormat  string
			Metadata   struct{ Component struct{ Version string } }
			Components []struct{ Name, Version, PURL string }
		}
		if err := json.Unmarshal(b, &bill); err != nil {
			t.Fatal(err)
		}
		if bill.BOMFormat != "CycloneDX" || bill.Metadata.Component.Version != releaseVersion(t) ||
			len(bill.Components) < 20 {
			t.Errorf("the bill of %s is %+v", name, bill)
		}
		for _, program := range []string{"duet", "duetd"} {
			path := filepath.Join(dir, name, program)
			f, err := elf.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			if f.Machine != machine {
				t.Errorf("%s of %s is for %v", program, name, f.Machine)
			}
			_ = f.Close() // only read
			p, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			sum := sha256.Sum256(p)
			if !bytes.Contains(b, []byte(hex.EncodeToString(sum[:]))) {
				t.Errorf("the bill of %s does not know %s", name, program)
			}
		}
	}
}

// TestRPM: rpm reads its package, and knows which files are the admin's.
func TestRPM(t *testing.T) {
	needRelease(t)
	need(t, "rpm")
	for _, file := range files(t, "*.rpm") {
		query := func(args ...string) string {
			cmd := exec.Command("rpm", append([]string{"--query", "--package", "--nosignature"}, append(args, file)...)...)
			cmd.Env = append(os.Environ(), "LC_ALL=C")
			out, err := cmd.Output() // it warns of root
			if err != nil {
				t.Fatalf("%s: %v", cmd, err)
			}
			return string(out)
		}
		if got := query("--queryformat", "%{NAME} %{VERSION}"); got != "duet "+releaseVersion(t) {
			t.Errorf("%s is %q", file, got)
		}
		if got := query("--configfiles"); got != "/etc/sysconfig/duetd\n" {
			t.Errorf("%s has configuration %q", file, got)
		}
		list := query("--list")
		for _, name := range []string{
			"/usr/sbin/duetd", "/usr/bin/duet", "/usr/lib/systemd/system/duetd.service", "/usr/share/duet/duet.cil",
		} {
			if !strings.Contains(list, name+"\n") {
				t.Errorf("%s has no %s", file, name)
			}
		}
	}
}
