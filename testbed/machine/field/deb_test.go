//go:build linux

package field

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// packages returns the package to install and one of a higher version with the same content.
func packages(p *pair) (file, newer string) {
	p.Helper()
	dir := p.TempDir()
	tree := filepath.Join(dir, "tree")
	file, newer = *deb, filepath.Join(dir, "duet-next.deb")
	if file == "" {
		file = filepath.Join(dir, "duet.deb")
		for name, text := range map[string]string{
			"DEBIAN/control":  "Package: duet\nVersion: 0.1\nArchitecture: amd64\nMaintainer: nobody <nobody@localhost>\nDepends: libvirt0\nDescription: test\n",
			"DEBIAN/postinst": "#!/bin/sh\nset -e\nsystemctl daemon-reload\n[ -z \"$2\" ] || systemctl try-restart duetd duetd-witness\n",
			"DEBIAN/prerm":    "#!/bin/sh\nset -e\n[ \"$1\" != remove ] || systemctl disable --now duetd duetd-witness\n",
		} {
			path := filepath.Join(tree, name)
			p.must(os.MkdirAll(filepath.Dir(path), 0o755))
			p.must(os.WriteFile(path, []byte(text), 0o755))
		}
		p.must(os.MkdirAll(filepath.Join(tree, "usr/sbin"), 0o755))
		p.must(os.MkdirAll(filepath.Join(tree, "lib/systemd/system"), 0o755))
		p.shell("go build -tags libvirt_dlopen -o " + tree + "/usr/sbin duet/cmd/duet duet/cmd/duetd")
		for _, unit := range []string{"duetd.service", "duetd-witness.service"} {
			p.shell("sed s,/usr/local/sbin,/usr/sbin, ../../../docs/" + unit + " >" + tree + "/lib/systemd/system/" + unit)
		}
		p.shell("dpkg-deb -Znone -b " + tree + " " + file)
		p.must(os.RemoveAll(tree))
	}
	p.shell("dpkg-deb -R " + file + " " + tree)
	control := filepath.Join(tree, "DEBIAN/control")
	text, err := os.ReadFile(control)
	p.must(err)
	version := regexp.MustCompile(`(?m)^Version: (.*)$`)
	next := version.ReplaceAllString(string(text), "Version: ${1}+next")
	if next == string(text) {
		p.Fatalf("the package has no version: %s", text)
	}
	p.must(os.WriteFile(control, []byte(next), 0o644))
	p.shell("dpkg-deb -Znone -b " + tree + " " + newer)
	return file, newer
}

func (p *pair) shell(command string) {
	p.Helper()
	if out, err := exec.Command("sh", "-c", command).CombinedOutput(); err != nil {
		p.Fatalf("%s: %v\n%s", command, err, strings.TrimSpace(string(out)))
	}
}
