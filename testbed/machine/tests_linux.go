package machine

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"duet/testbed/guest"
)

// Where the module, the programs of a test and its cache lie inside.
const (
	insideModule = "/opt/module"
	insideBuilt  = "/opt/built"
	insideCache  = "/var/cache/tests"
)

// Tests runs a test binary of this module in a suite image. Nothing of Go is needed inside: the binary, Duet's
// programs and the test VM are built here and bound in. built and kept are directories of the cache that all
// processes of this user share; each Run has a directory of its own in built for its binary.
type Tests struct {
	image  Image
	module string // folder of this module
	built  string
	kept   string // the cache of the tests, which depends on the release: QEMU's capabilities
}

// NewTests makes the image, Duet's programs and the test VM. cache is the testbed's folder in the user's cache, module
// the folder of this module.
func NewTests(ctx context.Context, cache, module string, r Release) (*Tests, error) {
	im, err := Suite(ctx, cache, r)
	if err != nil {
		return nil, err
	}
	t := &Tests{image: im, module: module}
	t.built = filepath.Join(im.cache, r.String()+"-built")
	t.kept = filepath.Join(im.cache, r.String()+"-kept")
	for _, dir := range []string{t.built, t.kept} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, fmt.Errorf("make tests for %s: %w", r, err)
		}
	}
	if err := t.build(ctx, filepath.Join(cache, "guest")); err != nil {
		return nil, fmt.Errorf("make tests for %s: %w", r, err)
	}
	return t, nil
}

func (t *Tests) build(ctx context.Context, guests string) error {
	if err := t.goTool(ctx, "build", "-o", t.built, "duet/cmd/duet", "duet/cmd/duetd"); err != nil {
		return err
	}
	vm, err := guest.Build(ctx, guests, t.module)
	if err != nil {
		return err
	}
	for name, file := range map[string]string{guest.PrebuiltKernel: vm.Kernel, guest.PrebuiltInitrd: vm.Initrd} {
		if _, err := run(exec.CommandContext(ctx, "cp", "--update", file, filepath.Join(t.built, name))); err != nil {
			return err
		}
	}
	return nil
}

func (t *Tests) goTool(ctx context.Context, verb string, args ...string) error {
	cmd := exec.CommandContext(ctx, "go", append([]string{verb, "-tags", "libvirt_dlopen"}, args...)...)
	cmd.Dir = t.module
	_, err := run(cmd)
	return err
}

// Run compiles the tests of a package, "./vmmanager/libvirt" say, and runs them inside with the given flags,
// which are those of a test binary: -test.run and so on. The module is bound in writable, so tests that write
// testdata do so in this tree. The error has the exit code in it.
func (t *Tests) Run(ctx context.Context, pkg string, flags []string, stdout, stderr *os.File) error {
	own, err := os.MkdirTemp(t.built, "run-")
	if err != nil {
		return fmt.Errorf("run tests of %s in %s: %w", pkg, t.image.Release, err)
	}
	defer os.RemoveAll(own)
	if err := os.Chmod(own, 0o755); err != nil { // as the directories around it
		return fmt.Errorf("run tests of %s in %s: %w", pkg, t.image.Release, err)
	}
	binary := filepath.Join(own, filepath.Base(pkg)+".test")
	if err := t.goTool(ctx, "test", "-c", "-o", binary, pkg); err != nil {
		return fmt.Errorf("run tests of %s in %s: %w", pkg, t.image.Release, err)
	}
	return t.image.Exec(ctx, Command{
		Args:  append([]string{filepath.Join(insideBuilt, filepath.Base(own), filepath.Base(binary))}, flags...),
		Dir:   filepath.Join(insideModule, pkg),
		Env:   []string{guest.Prebuilt + "=" + insideBuilt, "XDG_CACHE_HOME=" + insideCache},
		Binds: []Bind{{t.module, insideModule}, {t.built, insideBuilt}, {t.kept, insideCache}},
	}, stdout, stderr)
}
