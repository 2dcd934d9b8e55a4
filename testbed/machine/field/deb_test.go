//go:build linux

package field

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// The versions that are installed, and upgraded to. Both are this tree: what changes is what the packages do.
const (
	version = "0.0.1"
	next    = "0.0.2"
)

func deb(version string) string { return "duet_" + version + "_amd64.deb" }

// packages builds both as `make packages` does, but with the build cache of the tests, and returns their folder.
func packages(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, v := range []string{version, next} {
		cmd := exec.Command("../../../cmd/packaging/build.sh", v, dir, "amd64", "deb")
		cmd.Env = append(os.Environ(), "BUILDFLAGS=")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("build packages: %v\n%s", err, out)
		}
	}
	return dir
}

// push puts both packages into root's folder of every machine.
func (p *pair) push(packages string) {
	p.Helper()
	for _, m := range p.site.Machines {
		for _, v := range []string{version, next} {
			p.must(m.Push(p.ctx, filepath.Join(packages, deb(v)), "/root/"+deb(v)))
		}
	}
}
