package testcluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// disk is the disk of a host: an ext4 in a file, for what a host must not lose (Duet's state and the images of
// VMs). Unlike a folder of this computer it can be filled, it can fail, and what was not flushed is gone after a
// power cut. It needs mkfs.ext4 and a loop device. The image grows as it is written.
type disk struct {
	dir string // where it is mounted
	n   int    // the image in use is dir.n.img
}

func (d *disk) image() string { return fmt.Sprintf("%s.%d.img", d.dir, d.n) }

// command runs a program of this computer.
func command(ctx context.Context, name string, args ...string) error {
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("run %s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// newDisk makes and mounts a disk of some MiB.
func newDisk(ctx context.Context, dir string, mib int) (*disk, error) {
	d := &disk{dir: dir}
	err := os.MkdirAll(dir, 0o755)
	if err == nil {
		err = command(ctx, "truncate", "-s", fmt.Sprintf("%dM", mib), d.image())
	}
	if err == nil {
		err = command(ctx, "mkfs.ext4", "-q", "-m", "0", "-E", "lazy_itable_init=0,nodiscard", d.image())
	}
	if err == nil {
		err = d.mount(ctx)
	}
	return d, err
}

func (d *disk) mount(ctx context.Context) error {
	return command(ctx, "mount", "-o", "loop", d.image(), d.dir)
}

// goingDown is the ioctl by which ext4 ends at once, without writing anything more:
// every later access fails. Its argument says that not even the journal is flushed.
const (
	goingDown  = 0x8004587d
	noLogFlush = 2
)

// fail makes the disk fail from now on. Only what ext4 has written to its image by then is there after replug.
func (d *disk) fail() error {
	f, err := os.Open(d.dir)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.IoctlSetPointerInt(int(f.Fd()), goingDown, noLogFlush); err != nil {
		return fmt.Errorf("end file system %s: %w", d.dir, err)
	}
	return nil
}

// replug mounts what a failed disk holds. The old mount may live on in namespaces of other tests, and the kernel
// may still write to its image: so a copy is mounted. It needs room for a second image for a moment. If it fails
// the disk stays as it is, failed and mounted, or is not mounted.
func (d *disk) replug(ctx context.Context) error {
	old, next := d.image(), disk{d.dir, d.n + 1}
	if err := command(ctx, "cp", "--sparse=always", old, next.image()); err != nil {
		return err
	}
	*d = next
	return errors.Join(command(ctx, "umount", "-l", d.dir), os.Remove(old), d.mount(ctx))
}

// close unmounts; the image stays in the directory of the cluster. It is lazy: what a namespace still holds goes
// when that does.
func (d *disk) close() error {
	if err := unix.Unmount(d.dir, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("unmount %s: %w", d.dir, err)
	}
	return nil
}

// ErrNoDisk is returned for a fault of a disk that a cluster without Config.DiskMiB has not.
var ErrNoDisk = errors.New("the hosts of this cluster have no disks of their own")

// FailDisk makes every access to the host's disk fail until PowerCut. The host lives on with it.
func (h *Host) FailDisk() error {
	if h.disk == nil {
		return ErrNoDisk
	}
	return h.disk.fail()
}

// The ioctls by which a file system takes no write any more, and takes them again.
const (
	freeze = 0xc0045877
	thaw   = 0xc0045878
)

// HangDisk has no write to the host's disk end until ThawDisk: an answer does not come, and no error either.
// Reads go on. A process that writes waits where no signal reaches it, so neither Kill nor PowerCut of the host
// ends before the thaw.
func (h *Host) HangDisk() error { return h.frost(freeze) }

// ThawDisk takes back HangDisk; without one it fails.
func (h *Host) ThawDisk() error { return h.frost(thaw) }

func (h *Host) frost(how uint) error {
	if h.disk == nil {
		return ErrNoDisk
	}
	f, err := os.Open(h.disk.dir)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.IoctlSetInt(int(f.Fd()), how, 0); err != nil {
		return fmt.Errorf("freeze or thaw %s: %w", h.disk.dir, err)
	}
	return nil
}

// FillDisk leaves no room on the host's disk until EmptyDisk. It takes space by ever smaller steps down to 4
// KiB, without writing it. What the daemon has allocated already it can still write.
func (h *Host) FillDisk(ctx context.Context) error {
	if h.disk == nil {
		return ErrNoDisk
	}
	f, err := os.Create(h.filler())
	if err != nil {
		return fmt.Errorf("fill disk: %w", err)
	}
	defer f.Close()
	for n := int64(1 << 30); n >= 4096; {
		st, err := f.Stat()
		if err != nil {
			return fmt.Errorf("fill disk: %w", err)
		}
		if unix.Fallocate(int(f.Fd()), 0, st.Size(), n) != nil {
			n /= 2
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return nil
}

func (h *Host) filler() string { return filepath.Join(h.disk.dir, "filler") }

// EmptyDisk takes back FillDisk; without one it does nothing.
func (h *Host) EmptyDisk() error {
	if h.disk == nil {
		return ErrNoDisk
	}
	if err := os.Remove(h.filler()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// PowerCut is Kill, and what was not flushed to the host's disk is gone. Boot switches the host on again. On an
// error the host is off and its disk may not be mounted.
func (h *Host) PowerCut(ctx context.Context) error {
	if h.disk == nil {
		return ErrNoDisk
	}
	// Everything stops within the few ms before the disk does, as with a real power supply.
	if err := h.Node.Kill(); err != nil {
		return err
	}
	if err := h.disk.fail(); err != nil && !errors.Is(err, unix.EIO) { // failed already
		return err
	}
	return h.disk.replug(ctx)
}
