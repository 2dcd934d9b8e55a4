package backing_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"duet/blockrepl"
	"duet/blockrepl/backing"
	"duet/blockrepl/blocktest"
)

// run executes a program or skips the test where that cannot work.
func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Skipf("%s %v: %v: %s", name, args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// loopDevice makes a block device of size bytes.
func loopDevice(t *testing.T, size int64, args ...string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root for a loop device")
	}
	image := filepath.Join(t.TempDir(), "loop")
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, size); err != nil {
		t.Fatal(err)
	}
	dev := run(t, "losetup", append(args, "--show", "-f", image)...)
	t.Cleanup(func() { run(t, "losetup", "-d", dev) })
	return dev
}

func TestBlockDevice(t *testing.T) {
	blocktest.Device(t, func(t *testing.T) blockrepl.Device {
		f, err := backing.OpenFile(loopDevice(t, blocktest.DeviceSize), blocktest.DeviceSize)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	})
}

// With sectors of 4 KiB the kernel cannot zero 512 bytes; we can.
func TestBlockDeviceLargeSectors(t *testing.T) {
	f, err := backing.OpenFile(loopDevice(t, 1<<20, "-b", "4096"), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	blocktest.Do(t, startQueue(t, f), blocktest.Write(1, 0, 8192),
		&blockrepl.Request{Op: blockrepl.OpDiscard, Off: 512, Len: 512},
		&blockrepl.Request{Op: blockrepl.OpZero, Off: 1024, Len: 512})
	p := make([]byte, 2048)
	if _, err := f.ReadAt(p, 0); err != nil {
		t.Fatal(err)
	}
	for i, want := range []byte{1, 0, 0, 1} {
		if p[i*512] != want || p[i*512+511] != want {
			t.Errorf("sector %d is %d, want %d", i, p[i*512], want)
		}
	}
}

func startQueue(t *testing.T, dev blockrepl.Device) blockrepl.Queue {
	q := blocktest.StartQueue(dev, 1)
	t.Cleanup(func() { q.Close() })
	return q
}

func TestMountedBlockDeviceIsRefused(t *testing.T) {
	dev := loopDevice(t, 16<<20)
	run(t, "mkfs.ext4", "-q", dev)
	dir := t.TempDir()
	run(t, "mount", dev, dir)
	defer run(t, "umount", dir)
	if _, err := backing.OpenFile(dev, 0); !errors.Is(err, backing.ErrInUse) {
		t.Errorf("open of a mounted device: %v", err)
	}
}

// QEMU must not open an image we serve, nor we one QEMU uses.
func TestLockAgainstQemu(t *testing.T) {
	if _, err := exec.LookPath("qemu-io"); err != nil {
		t.Skip("qemu-io is not installed")
	}
	f := newFile(t, 1<<20)
	out, err := exec.Command("qemu-io", "-f", "raw", "-c", "read 0 512", f.Path()).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "lock") {
		t.Errorf("qemu opened an image in use: %v\n%s", err, out)
	}
	f.Close()

	qemu := exec.Command("qemu-io", "-f", "raw", f.Path())
	stdin, err := qemu.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := qemu.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := qemu.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := stdout.Read(make([]byte, 8)); err != nil { // the prompt: it has the image
		t.Fatal(err)
	}
	if _, err := backing.OpenFile(f.Path(), 0); !errors.Is(err, backing.ErrInUse) {
		t.Errorf("open of an image QEMU has: %v", err)
	}
	stdin.Close()
	if err := qemu.Wait(); err != nil {
		t.Error(err)
	}
}

// smallFS mounts a file system of the given kind with little room.
func smallFS(t *testing.T, kind, size string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to mount")
	}
	dir := t.TempDir()
	run(t, "mount", "-t", kind, "-o", "size="+size, "none", dir)
	t.Cleanup(func() { run(t, "umount", dir) })
	return dir
}

func TestNoSpace(t *testing.T) {
	f, err := backing.CreateFile(filepath.Join(smallFS(t, "tmpfs", "1m"), "image"), 8<<20)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for off := int64(0); off < f.Size() && err == nil; off += 64 << 10 {
		_, err = f.WriteAt(make([]byte, 64<<10), off)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("write to a full file system: %v", err)
	}
	if err := f.Discard(0, 1<<20); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(make([]byte, 64<<10), 0); err != nil {
		t.Errorf("write after discard: %v", err)
	}
}

// tmpfs cannot zero a range nor, on older kernels, read without waiting: the fallbacks run.
func TestFileOnTmpfs(t *testing.T) {
	blocktest.Device(t, func(t *testing.T) blockrepl.Device {
		f, err := backing.CreateFile(filepath.Join(smallFS(t, "tmpfs", "16m"), "image"), blocktest.DeviceSize)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	})
}

func TestDiscardGivesSpaceBack(t *testing.T) {
	f := newFile(t, 8<<20)
	if _, err := f.WriteAt(make([]byte, 8<<20), 0); err != nil {
		t.Fatal(err)
	}
	if err := f.Flush(); err != nil {
		t.Fatal(err)
	}
	used := func() int64 {
		var st syscall.Stat_t
		if err := syscall.Stat(f.Path(), &st); err != nil {
			t.Fatal(err)
		}
		return st.Blocks * 512
	}
	before := used()
	if err := f.Zero(0, 4<<20); err != nil {
		t.Fatal(err)
	}
	if now := used(); now != before {
		t.Errorf("zero changed the space from %d to %d", before, now)
	}
	if err := f.Discard(0, 4<<20); err != nil {
		t.Fatal(err)
	}
	if now := used(); now > before-3<<20 {
		t.Errorf("discard left %d of %d bytes", now, before)
	}
}

func TestFastRead(t *testing.T) {
	f := newFile(t, 1<<20)
	p := make([]byte, 64<<10)
	if _, err := f.WriteAt(p, 0); err != nil {
		t.Fatal(err)
	}
	if !f.TryReadAt(p, 0) {
		t.Skip("this file system cannot read without waiting")
	}
	if allocs := testing.AllocsPerRun(100, func() { f.TryReadAt(p[:4096], 4096) }); allocs != 0 {
		t.Errorf("%v allocations per fast read", allocs)
	}
}
