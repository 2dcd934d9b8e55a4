package divergence

import (
	"bytes"
	"errors"
	"syscall"
	"testing"

	"duet/blockrepl"
	"duet/blockrepl/backing"
)

// A real full disk: writes fail, the image keeps its content, what was saved stays,
// and with space again it goes on.
func TestDiskFull(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=2m"); err != nil {
		t.Skipf("mounting a small tmpfs needs root: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	const size = 8 << 20
	base := backing.NewMemory(size)
	if _, err := base.WriteAt(bytes.Repeat([]byte{4}, size), 0); err != nil {
		t.Fatal(err)
	}
	was := content(t, base)
	v := begin(t, dir, size)
	dev := wrap(t, base, v)
	p := bytes.Repeat([]byte{6}, 2*blockrepl.RegionSize)
	var off int64
	for ; off < size; off += int64(len(p)) {
		before := content(t, base)
		_, err := dev.WriteAt(p, off)
		if err == nil {
			continue
		}
		if !errors.Is(err, ErrAside) || !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
		if !bytes.Equal(content(t, base), before) {
			t.Fatal("the image was touched")
		}
		break
	}
	if off == 0 || off == size {
		t.Fatalf("the disk was full after %d bytes", off)
	}
	wantVersion(t, v, base, was)
	if _, err := dev.WriteAt(p, 0); err != nil {
		t.Errorf("write to saved regions: %v", err)
	}
	if err := syscall.Mount("", dir, "", syscall.MS_REMOUNT, "size=32m"); err != nil {
		t.Fatal(err)
	}
	for ; off < size; off += int64(len(p)) {
		if _, err := dev.WriteAt(p, off); err != nil {
			t.Fatal(err)
		}
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := Open(v.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	wantVersion(t, again, base, was)
}
