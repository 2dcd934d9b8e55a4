package guest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// initPackage is built into the initramfs as /init.
const initPackage = "duet/testbed/guest/init"

// Prebuilt is the environment variable that names a folder with all that tests would else build with the go command:
// duet, duetd, and the guest's kernel and initramfs under these names. It is for computers without Go, see
// testbed/machine.
const (
	Prebuilt       = "DUET_PREBUILT"
	PrebuiltKernel = "vmlinuz"
	PrebuiltInitrd = "initrd"
)

// Build returns the guest's kernel and initramfs from cacheDir and makes what is missing there: the first call
// downloads Debian's cloud kernel (25 MB, never installed), every call builds the guest's program with the go
// command in moduleDir ("" is the working directory, which must be inside this module). Safe to call from
// several processes. Where the environment names a folder of things built elsewhere (Prebuilt), they are taken
// and nothing is built. ErrNoKernel is in the error if Debian's kernel cannot be had. A second caller waits for
// the first, for minutes perhaps; ctx does not end that wait.
func Build(ctx context.Context, cacheDir, moduleDir string) (Files, error) {
	if dir := os.Getenv(Prebuilt); dir != "" {
		return Files{Kernel: filepath.Join(dir, PrebuiltKernel), Initrd: filepath.Join(dir, PrebuiltInitrd)}, nil
	}
	if err := os.MkdirAll(cacheDir, 0o755); err != nil {
		return Files{}, fmt.Errorf("build guest: %w", err)
	}
	unlock, err := lock(filepath.Join(cacheDir, "lock"))
	if err != nil {
		return Files{}, fmt.Errorf("build guest: %w", err)
	}
	defer unlock()
	b := builder{ctx: ctx, cache: cacheDir}
	kernel, err := b.kernelDir()
	if err != nil {
		return Files{}, fmt.Errorf("build guest: %w: %w", ErrNoKernel, err)
	}
	initrd, err := b.initrd(kernel, moduleDir)
	if err != nil {
		return Files{}, fmt.Errorf("build guest: %w", err)
	}
	return Files{Kernel: filepath.Join(kernel, "vmlinuz"), Initrd: initrd}, nil
}

// lock waits for the file lock of path, which ends with the process at the latest. The kernel gives it back when
// the file is closed, so a process that is killed leaves no lock.
func lock(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return func() { f.Close() }, nil
}

// builder: it holds the lock of the cache, so nobody else writes there.
type builder struct {
	ctx   context.Context
	cache string
}

// run executes a command and returns its standard output; the error carries its standard error.
func (b builder) run(cmd *exec.Cmd) ([]byte, error) {
	var out, fault bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &fault
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("run %s: %w: %s", filepath.Base(cmd.Path), err, bytes.TrimSpace(fault.Bytes()))
	}
	return out.Bytes(), nil
}

// kernelDir returns a folder with vmlinuz and the modules, named so that their sorted order is the order to load
// them. The folder's name ends in a hash of the wanted modules: another list is another folder. A kernel is
// never replaced by a newer one.
func (b builder) kernelDir() (string, error) {
	// One kernel with these modules is as good as another, so an unpacked one spares the look into the package lists.
	suffix := fmt.Sprintf(".%x", sha256.Sum256([]byte(strings.Join(wanted(), " "))))[:9]
	found, err := filepath.Glob(filepath.Join(b.cache, "linux-image-*"+suffix, "vmlinuz"))
	if err != nil {
		return "", err
	}
	if len(found) > 0 {
		return filepath.Dir(found[len(found)-1]), nil
	}
	out, err := b.run(exec.CommandContext(b.ctx, "apt-cache", "depends", "linux-image-cloud-amd64"))
	if err != nil {
		return "", err
	}
	name := kernelPackage(string(out))
	if name == "" {
		return "", errors.New("linux-image-cloud-amd64 depends on no kernel: run apt-get update")
	}
	tmp, err := os.MkdirTemp(b.cache, "tmp-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(tmp)
	get := exec.CommandContext(b.ctx, "apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", name)
	get.Dir = tmp
	if _, err := b.run(get); err != nil {
		return "", err
	}
	debs, err := filepath.Glob(filepath.Join(tmp, "*.deb"))
	if err != nil || len(debs) != 1 {
		return "", fmt.Errorf("download %s: %d files came", name, len(debs))
	}
	tree := filepath.Join(tmp, "tree")
	if _, err := b.run(exec.CommandContext(b.ctx, "dpkg-deb", "-x", debs[0], tree)); err != nil {
		return "", err
	}
	dir := filepath.Join(b.cache, name+suffix)
	return dir, b.pick(tree, filepath.Join(tmp, "out"), dir)
}

// pick copies the kernel and the modules the guest loads from tree to out and renames out to dir at the end, so
// that dir is either complete or missing. Files are moved out of tree, which is of no use afterwards.
func (b builder) pick(tree, out, dir string) error {
	if err := os.Mkdir(out, 0o755); err != nil {
		return err
	}
	kernels, err := filepath.Glob(filepath.Join(tree, "boot", "vmlinuz-*"))
	if err != nil || len(kernels) != 1 {
		return fmt.Errorf("unpack kernel: %d images in the package", len(kernels))
	}
	if err := os.Rename(kernels[0], filepath.Join(out, "vmlinuz")); err != nil {
		return err
	}
	t, err := readTree(filepath.Join(tree))
	if err != nil {
		return err
	}
	mods, err := t.closure(wanted(), b.uncompressed)
	if err != nil {
		return err
	}
	for i, mod := range mods {
		name := fmt.Sprintf("%02d-%s.ko", i, moduleName(mod))
		if err := os.Rename(strings.TrimSuffix(mod, ".xz"), filepath.Join(out, name)); err != nil {
			return err
		}
	}
	return os.Rename(out, dir)
}

// uncompressed makes sure that the module lies there uncompressed (Debian 13 compresses them) and reads its
// dependencies.
func (b builder) uncompressed(file string) ([]string, error) {
	if plain, ok := strings.CutSuffix(file, ".xz"); ok {
		if _, err := b.run(exec.CommandContext(b.ctx, "xz", "-d", file)); err != nil {
			return nil, err
		}
		file = plain
	}
	return readDepends(file)
}

// initrd builds /init and packs it with the modules of kernelDir. The name of the file is the hash of its
// content. Two guests of one content are one file, so a test that runs keeps its own while the program changes.
func (b builder) initrd(kernelDir, moduleDir string) (string, error) {
	tmp, err := os.MkdirTemp(b.cache, "tmp-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(tmp)
	program := filepath.Join(tmp, "init")
	build := exec.CommandContext(b.ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", program, initPackage)
	build.Dir = moduleDir
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64", "GOFLAGS=")
	if _, err := b.run(build); err != nil {
		return "", err
	}
	image, err := pack(program, kernelDir)
	if err != nil {
		return "", err
	}
	path := filepath.Join(b.cache, fmt.Sprintf("initrd-%x.cpio", sha256.Sum256(image)))
	if _, err := os.Stat(path); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return path, err
	}
	part := filepath.Join(tmp, "initrd")
	if err := os.WriteFile(part, image, 0o644); err != nil {
		return "", err
	}
	return path, os.Rename(part, path)
}

// pack makes the initramfs. It is not compressed: the guest would spend more time on unpacking than QEMU on
// loading. Times and numbers of inodes are fixed, so equal content makes an equal file.
func pack(program, kernelDir string) ([]byte, error) {
	var image bytes.Buffer
	a := &archive{w: &image}
	for _, dir := range []string{"dev", "proc", "sys", "modules"} {
		a.dir(dir)
	}
	mods, err := filepath.Glob(filepath.Join(kernelDir, "*.ko"))
	if err != nil {
		return nil, err
	}
	for _, mod := range mods {
		b, err := os.ReadFile(mod)
		if err != nil {
			return nil, err
		}
		a.file("modules/"+filepath.Base(mod), modeFile, b)
	}
	b, err := os.ReadFile(program)
	if err != nil {
		return nil, err
	}
	a.file("init", modeExec, b)
	return image.Bytes(), a.close()
}
