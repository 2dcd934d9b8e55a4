//go:build linux

package packaging

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"duet/cluster/clustertest"
)

// system is an installed Debian as far as our package can tell: dpkg's own records in a directory, and a systemd that
// writes down what it is asked.
type system struct {
	t    *testing.T
	root string
	bin  string // before all others in PATH
}

func newSystem(t *testing.T) *system {
	s := &system{t, t.TempDir(), t.TempDir()}
	s.write("var/lib/dpkg/status", "")
	for _, dep := range []string{"libc6 2.36-9", "libvirt0 9.0.0-4"} { // so that Depends is put to the test
		name, version, _ := strings.Cut(dep, " ")
		s.append("var/lib/dpkg/status", "Package: "+name+"\nStatus: install ok installed\nMaintainer: x\n"+
			"Architecture: "+runtime.GOARCH+"\nVersion: "+version+"\nDescription: x\n\n")
	}
	for _, dir := range []string{"var/lib/dpkg/updates", "var/lib/dpkg/info", "run/systemd/system"} {
		s.mkdir(dir)
	}
	s.write("etc/apparmor.d/abstractions/libvirt-qemu", "#include <local/abstractions/libvirt-qemu>\n")
	s.write("etc/apparmor.d/local/abstractions/libvirt-qemu", "/srv/mine r,\n")
	for _, name := range []string{"systemctl", "deb-systemd-invoke"} {
		// What is-active answers is a file.
		script := "#!/bin/sh\necho " + name + " \"$@\" >>" + s.path("calls") + "\n" +
			"case $* in *is-active*) [ -e " + s.path("active") + " ] ;; esac\n"
		if err := clustertest.WriteProgram(filepath.Join(s.bin, name), script); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func (s *system) path(name string) string { return filepath.Join(s.root, name) }

func (s *system) mkdir(name string) {
	s.t.Helper()
	if err := os.MkdirAll(s.path(name), 0o755); err != nil {
		s.t.Fatal(err)
	}
}

func (s *system) write(name, text string) {
	s.t.Helper()
	s.mkdir(filepath.Dir(name))
	if err := os.WriteFile(s.path(name), []byte(text), 0o644); err != nil {
		s.t.Fatal(err)
	}
}

func (s *system) append(name, text string) { s.t.Helper(); s.write(name, s.read(name)+text) }

// read returns a file's text, "" if there is none.
func (s *system) read(name string) string {
	s.t.Helper()
	b, err := os.ReadFile(s.path(name))
	if err != nil && !os.IsNotExist(err) {
		s.t.Fatal(err)
	}
	return string(b)
}

// has fails the test unless each file is there, or is not where its name begins with "!".
func (s *system) has(names ...string) {
	s.t.Helper()
	for _, name := range names {
		name, gone := strings.CutPrefix(name, "!")
		switch _, err := os.Lstat(s.path(name)); {
		case err == nil && gone:
			s.t.Errorf("%s is still there", name)
		case err != nil && !gone:
			s.t.Error(err)
		}
	}
}

// dpkg runs dpkg and returns what it said and what systemd was asked meanwhile.
func (s *system) dpkg(args ...string) (said, asked string, err error) {
	s.t.Helper()
	s.write("calls", "")
	always := []string{"--root=" + s.root, "--force-not-root", "--force-script-chrootless", "--log=/dev/null"}
	cmd := exec.Command("dpkg", append(always, args...)...)
	cmd.Env = append(os.Environ(), "PATH="+s.bin+":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"LC_ALL=C")
	out, err := cmd.CombinedOutput()
	return string(out), s.read("calls"), err
}

// must is dpkg that has to succeed.
func (s *system) must(args ...string) (said, asked string) {
	s.t.Helper()
	said, asked, err := s.dpkg(args...)
	if err != nil {
		s.t.Fatalf("dpkg %s: %v\n%s", strings.Join(args, " "), err, said)
	}
	return said, asked
}

// upgrade returns the same package, a deb or an rpm, with a higher version.
func upgrade(t *testing.T, format string) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "duet."+format)
	tree := filepath.Join(filepath.Dir(deb(t)), "build", runtime.GOARCH)
	cmd := exec.Command("../nfpm", "package", "-p", format, "-t", out)
	cmd.Dir = tree
	cmd.Env = append(os.Environ(), "VERSION=99."+newer, "ARCH="+runtime.GOARCH)
	if said, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	return out
}

const (
	site = "etc/apparmor.d/local/abstractions/libvirt-qemu"
	line = "include if exists <abstractions/libvirt-qemu.d/duet> # by the package duet, which takes it away with itself\n"
	// A definition as libvirt writes it.
	protected = "<disk type='network' device='disk'>\n<source protocol='nbd' name='vda'>\n" +
		"<host transport='unix' socket='/run/duet/volumes/web01/vda.sock'/>\n</source></disk>\n"
)

// TestLife is a package's: installed, upgraded, not removed from under VMs, removed, purged.
func TestLife(t *testing.T) {
	first, second := deb(t), upgrade(t, "deb")
	s := newSystem(t)

	_, asked := s.must("--install", first)
	if strings.Contains(asked, "start") || strings.Contains(asked, "enable") {
		t.Errorf("installation asked systemd:\n%s", asked)
	}
	if got := s.read(site); got != "/srv/mine r,\n"+line {
		t.Errorf("AppArmor's site additions are\n%s", got)
	}

	// An admin enables it, edits its options, and has VMs.
	s.mkdir("etc/systemd/system/multi-user.target.wants")
	wants := "etc/systemd/system/multi-user.target.wants/duetd.service"
	if err := os.Symlink("/usr/lib/systemd/system/duetd.service", s.path(wants)); err != nil {
		t.Fatal(err)
	}
	s.append("etc/default/duetd", "DUETD_OPTS=--sleepy\n")
	s.write("active", "")
	s.write("etc/libvirt/qemu/plain.xml", "<source file='/srv/plain.img'/>\n")
	s.write("etc/libvirt/qemu/web01.xml", protected)
	for _, name := range []string{"pki/ca.key", "db/MANIFEST", "log/web01", "cluster.json", "console.token",
		"volumes/web01/vda.raw", "aside/old/x"} {
		s.write("var/lib/duet/"+name, "x")
	}
	s.mkdir("var/lib/duet/volumes/gone")

	_, asked = s.must("--install", second)
	if asked != "systemctl --system daemon-reload\ndeb-systemd-invoke try-restart duet-guard.service duet-apps.service "+
		"duetd.service duetd-witness.service\n" {
		t.Errorf("the upgrade asked systemd:\n%s", asked)
	}
	if got := s.read(site); got != "/srv/mine r,\n"+line || !strings.Contains(s.read("etc/default/duetd"), "--sleepy") {
		t.Errorf("the upgrade changed what is the admin's:\n%s", got)
	}

	said, asked, err := s.dpkg("--remove", "duet")
	if err == nil || !strings.Contains(said, " web01 ") || strings.Contains(said, "plain") ||
		strings.Contains(asked, "stop") {
		t.Errorf("removal under a VM: %v\n%s\n%s", err, said, asked)
	}
	s.has("usr/sbin/duetd", site)
	status := output(t, "dpkg-query", "--admindir="+s.path("var/lib/dpkg"), "-W", "-f", "${Status}", "duet")
	if !strings.HasSuffix(status, " ok installed") {
		t.Errorf("after the refusal the package is %q", status)
	}

	if err := os.Remove(s.path("active")); err != nil { // the admin stops the daemon
		t.Fatal(err)
	}
	said, asked = s.must("--remove", "duet")
	if !strings.Contains(said, "web01") || !strings.Contains(said, "/var/lib/duet") ||
		!strings.Contains(asked, "stop duetd.service") {
		t.Errorf("removal says\n%s\n%s", said, asked)
	}
	s.has("!usr/sbin/duetd", "etc/default/duetd", "var/lib/duet/pki/ca.key", "var/lib/duet/volumes/web01/vda.raw", wants)
	if got := s.read(site); got != "/srv/mine r,\n" {
		t.Errorf("AppArmor's site additions are\n%s", got)
	}

	said, _ = s.must("--purge", "duet")
	if !strings.Contains(said, "disk images are left in /var/lib/duet") {
		t.Errorf("the purge says\n%s", said)
	}
	s.has("!etc/default/duetd", "!"+wants, "!var/lib/duet/pki", "!var/lib/duet/db", "!var/lib/duet/cluster.json",
		"!var/lib/duet/volumes/gone", "!etc/apparmor.d/abstractions/libvirt-qemu.d/duet",
		"var/lib/duet/volumes/web01/vda.raw", "var/lib/duet/aside/old/x")
}

// TestDebian13: QEMU's abstraction reads our file by itself.
func TestDebian13(t *testing.T) {
	s := newSystem(t)
	s.write("etc/apparmor.d/abstractions/libvirt-qemu", "include if exists <abstractions/libvirt-qemu.d>\n")
	s.must("--install", deb(t))
	if got := s.read(site); got != "/srv/mine r,\n" {
		t.Errorf("AppArmor's site additions are\n%s", got)
	}
	s.must("--purge", "duet")
	s.has("!var/lib/duet", "!etc/apparmor.d/abstractions/libvirt-qemu.d")
}
