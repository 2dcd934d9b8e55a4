package machine

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// edition goes up when images must be built anew although their packages are the same.
const edition = "1"

// Image is the root tree of a Debian release, in layers that nobody writes to any more. It lies in the cache and
// stays there; Boot and Exec work on private copies. It is a value and needs no end. Nothing locks its layers: a
// process of another tree, whose layers of the same name have other packages, removes them while they are in
// use.
type Image struct {
	Release Release
	cache   string   // folder of all images and private copies
	layers  []string // the topmost first, as overlayfs wants them
}

// layer is one step of making an image: packages on top of what is below. Its folder has a hash of edition,
// release and the packages of all layers up to it in its name.
type layer struct {
	name     string
	packages []string // what apt is asked for; nil is debootstrap's own choice
}

// base is what debootstrap makes, a Debian as it comes.
var base = layer{name: "base"}

// host is what the README asks an admin to have, and no more. apt brings what these depend on.
var host = layer{"host", []string{
	"libvirt-daemon-system", "libvirt-clients", "qemu-system-x86", "qemu-utils", "apparmor",
	// Of the many packages that those recommend, what a server without a screen gets.
	"dnsmasq-base", "iptables", "polkitd", "dbus", "systemd-sysv", "iproute2", "ca-certificates",
}}

// suite is what the module's own tests run besides, see testbed/deps/packages.txt.
var suite = layer{"suite", []string{
	"libnbd-bin", "nbdkit", "fio", "e2fsprogs", "nftables", "iputils-ping", "procps", "curl",
}}

// kernel is what a machine needs that is no container: Debian's own kernel, and the program through which commands get
// inside.
var kernel = layer{"kernel", []string{"linux-image-amd64", "qemu-guest-agent"}}

// Host returns the image of a machine with libvirt and QEMU, and makes it first where cache lacks it. That takes some
// minutes and a Debian mirror, and needs root. Safe to call from several processes.
func Host(ctx context.Context, cache string, r Release) (Image, error) {
	return build(ctx, cache, r, base, host)
}

// Suite is like Host for a root in which the module's own tests run, see Exec.
func Suite(ctx context.Context, cache string, r Release) (Image, error) {
	return build(ctx, cache, r, base, host, suite)
}

// Kernel is like Host for an image that has a kernel of its own.
func Kernel(ctx context.Context, cache string, r Release) (Image, error) {
	return build(ctx, cache, r, base, host, kernel)
}

// build: the lock is that of the release, so two processes do not make one image at the same time; the second
// one finds it made.
func build(ctx context.Context, cache string, r Release, layers ...layer) (Image, error) {
	im := Image{Release: r, cache: filepath.Join(cache, "machine")}
	if err := os.MkdirAll(im.cache, 0o755); err != nil {
		return Image{}, fmt.Errorf("make image of %s: %w", r, err)
	}
	unlock, err := lock(filepath.Join(im.cache, "lock-"+r.String()), unix.LOCK_EX)
	if err != nil {
		return Image{}, fmt.Errorf("make image of %s: %w", r, err)
	}
	defer unlock()
	hash := sha256.New()
	for _, l := range layers {
		fmt.Fprintln(hash, edition, r, l.name, l.packages)
		dir := filepath.Join(im.cache, fmt.Sprintf("%s-%s-%x", r, l.name, hash.Sum(nil)[:6]))
		if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
			err = im.add(ctx, l, dir)
			if err != nil {
				return Image{}, fmt.Errorf("make image of %s: %w", r, err)
			}
		} else if err != nil {
			return Image{}, fmt.Errorf("make image of %s: %w", r, err)
		}
		im.layers = slices.Insert(im.layers, 0, dir)
	}
	return im, nil
}

// add makes one layer, so that dir is either complete or missing, and drops older ones of the same name.
func (im Image) add(ctx context.Context, l layer, dir string) error {
	old, err := filepath.Glob(filepath.Join(im.cache, fmt.Sprintf("%s-%s-*", im.Release, l.name)))
	if err != nil {
		return err
	}
	for _, o := range old {
		if err := os.RemoveAll(o); err != nil {
			return err
		}
	}
	tmp, err := im.scratch()
	if err != nil {
		return err
	}
	defer tmp.remove()
	sources, err := im.Release.sources(ctx)
	if err != nil {
		return err
	}
	if len(im.layers) == 0 {
		err = im.debootstrap(ctx, tmp, sources)
	} else {
		err = im.install(ctx, tmp, l.packages)
	}
	if err != nil {
		return err
	}
	return os.Rename(tmp.upper(), dir)
}

// debootstrap: it ends with all parts of the release in apt's list, so what is installed next is up to date.
func (im Image) debootstrap(ctx context.Context, tmp scratch, sources []source) error {
	args := []string{"--include=ca-certificates", im.Release.Codename(), tmp.upper(), sources[0].uri}
	if _, err := run(exec.CommandContext(ctx, "debootstrap", args...)); err != nil {
		return err
	}
	var list strings.Builder
	for _, s := range sources {
		fmt.Fprintf(&list, "deb %s %s main\n", s.uri, s.suite)
	}
	if err := os.WriteFile(filepath.Join(tmp.upper(), "etc/apt/sources.list"), []byte(list.String()), 0o644); err != nil {
		return err
	}
	// Every machine has an identity of its own, which it gets with its private copy.
	return os.WriteFile(filepath.Join(tmp.upper(), "etc/machine-id"), nil, 0o444)
}

// installing runs apt on the root at $1. policy-rc.d keeps services from being started here: a machine starts them when
// it boots. Everything is configured in the end, which debootstrap --include does not always reach.
const installing = `
root=$1; shift
cp -L /etc/resolv.conf "$root/etc/resolv.conf"
printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
chmod 755 "$root/usr/sbin/policy-rc.d"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount -t tmpfs tmpfs "$root/run"
export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8
chroot "$root" apt-get -q update
chroot "$root" apt-get -q install -y --no-install-recommends -o Dpkg::Use-Pty=0 "$@"
chroot "$root" dpkg --configure --pending
chroot "$root" apt-get clean
rm -f "$root"/usr/sbin/policy-rc.d "$root"/var/lib/apt/lists/*_*
: >"$root/etc/resolv.conf"
left=$(chroot "$root" dpkg --audit)
[ -z "$left" ] || { echo "$left" >&2; exit 1; }
`

// install: what apt says is in the error. The mounts go with the namespace; what has changed is in tmp.upper().
func (im Image) install(ctx context.Context, tmp scratch, packages []string) error {
	args := []string{"--mount", "--pid", "--fork", "--kill-child",
		"sh", "-c", im.mount(tmp) + installing, "sh", tmp.root()}
	_, err := run(exec.CommandContext(ctx, "unshare", append(args, packages...)...))
	return err
}

// mount returns the shell commands that put a private copy of the image at tmp.root(). They are for a mount
// namespace of their own, with which the mounts go away. The paths must not have a colon or a comma, which
// overlayfs would take for its own.
func (im Image) mount(tmp scratch) string {
	return fmt.Sprintf(`set -eu
mount --make-rprivate /
mount -t overlay overlay -o lowerdir=%s,upperdir=%s,workdir=%s %s
`, strings.Join(im.layers, ":"), tmp.upper(), tmp.work(), tmp.root())
}

// scratch is the folder of one private copy of an image.
type scratch struct {
	dir    string // below run in the cache
	unlock func() // when it is removed, or by the end of this process
}

func (s scratch) upper() string { return filepath.Join(s.dir, "upper") } // what the copy has changed
func (s scratch) work() string  { return filepath.Join(s.dir, "work") }  // overlayfs's own
func (s scratch) root() string  { return filepath.Join(s.dir, "root") }  // where the copy is mounted

func (s scratch) remove() error {
	err := os.RemoveAll(s.dir)
	s.unlock()
	return err
}

// scratch makes such a folder and removes those whose owners have died. The folder is locked for as long as its
// owner lives: that is how a later process tells what has been left. A process that is killed leaves the folder
// and no mounts, as those are in namespaces of their own.
func (im Image) scratch() (scratch, error) {
	parent := filepath.Join(im.cache, "run")
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return scratch{}, err
	}
	unlock, err := lock(parent, unix.LOCK_EX)
	if err != nil {
		return scratch{}, err
	}
	defer unlock()
	old, err := os.ReadDir(parent)
	if err != nil {
		return scratch{}, err
	}
	for _, o := range old {
		dir := filepath.Join(parent, o.Name())
		unlock, err := lock(dir, unix.LOCK_EX|unix.LOCK_NB)
		if err != nil {
			continue // in use
		}
		err = os.RemoveAll(dir)
		unlock()
		if err != nil {
			return scratch{}, fmt.Errorf("remove what a dead process left: %w", err)
		}
	}
	s := scratch{}
	if s.dir, err = os.MkdirTemp(parent, ""); err != nil {
		return scratch{}, err
	}
	if s.unlock, err = lock(s.dir, unix.LOCK_EX); err != nil {
		return scratch{}, err
	}
	for _, dir := range []string{s.upper(), s.work(), s.root()} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return scratch{}, errors.Join(err, s.remove())
		}
	}
	return s, os.Chmod(s.dir, 0o755)
}

// lock takes a lock of a file or a folder that ends with the process at the latest. Flock is of the open file: a
// child that inherits it would keep it, so files are opened close-on-exec, as Go does.
func lock(path string, how int) (unlock func(), err error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		f, err = os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	}
	if err != nil {
		return nil, err
	}
	for {
		err = unix.Flock(int(f.Fd()), how)
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
