package divergence

import (
	"bytes"
	"errors"
	"syscall"
	"testing"

	"duet/blockrepl"
	"duet/blockrepl/backing"
)

// A real full disk: the version is given up, told once, and its space given back; the
// writes go on.
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
	var told []error
	dev.GivenUp = func(gone *Version, cause error) {
		if gone != v {
			t.Errorf("version %s was given up", gone.About().ID)
		}
		told = append(told, cause)
	}
	p := bytes.Repeat([]byte{6}, 2*blockrepl.RegionSize)
	for off := int64(0); off < size; off += int64(len(p)) {
		if len(told) == 0 {
			wantVersion(t, v, base, was)
		}
		if _, err := dev.WriteAt(p, off); err != nil {
			t.Fatal(err)
		}
	}
	if len(told) != 1 || !errors.Is(told[0], syscall.ENOSPC) {
		t.Fatalf("given up: %v", told)
	}
	if !bytes.Equal(content(t, base), bytes.Repeat([]byte{6}, size)) {
		t.Error("the writes did not go on")
	}
	if err := v.Read(base, make([]byte, 512), 0); !errors.Is(err, ErrGivenUp) {
		t.Errorf("read: %v", err)
	}
	if _, err := Open(v.dir); !errors.Is(err, ErrGivenUp) {
		t.Errorf("open: %v", err)
	}
	all, err := List(dir)
	if err != nil || len(all) != 1 {
		t.Fatalf("%+v, %v", all, err)
	}
	if e := all[0]; !errors.Is(e.Err, ErrGivenUp) || e.About.Module != "web01" || e.About.GivenUp == "" {
		t.Errorf("%+v", e)
	}
	var fs syscall.Statfs_t
	if err := syscall.Statfs(dir, &fs); err != nil || int64(fs.Bfree)*fs.Bsize < 1<<20 {
		t.Errorf("%d bytes are free: %v", int64(fs.Bfree)*fs.Bsize, err)
	}
	if err := Drop(v.dir); err != nil {
		t.Error(err)
	}
	if all, err := List(dir); err != nil || len(all) != 0 {
		t.Errorf("%+v, %v", all, err)
	}
}

// Old content that cannot be read does not stop a write: what can be read of it is saved,
// and the version says that something is missing.
func TestOldContentUnreadable(t *testing.T) {
	const size = 4 * blockrepl.RegionSize
	mem := backing.NewMemory(size)
	if _, err := mem.WriteAt(bytes.Repeat([]byte{4}, size), 0); err != nil {
		t.Fatal(err)
	}
	base := backing.NewFaulty(mem)
	heal := base.Inject(backing.Fault{
		Ops: []blockrepl.Op{blockrepl.OpRead}, Off: blockrepl.RegionSize + 4096, Len: 512, Err: syscall.EIO,
	})
	dir := t.TempDir()
	v := begin(t, dir, size)
	dev := wrap(t, base, v)
	dev.GivenUp = func(_ *Version, cause error) { t.Errorf("given up: %v", cause) }
	if _, err := dev.WriteAt(bytes.Repeat([]byte{6}, size), 0); err != nil {
		t.Fatal(err)
	}
	heal()
	want := bytes.Repeat([]byte{4}, size)
	clear(want[blockrepl.RegionSize+4096:][:4096])
	wantVersion(t, v, base, want)
	if all, err := List(dir); err != nil || len(all) != 1 || all[0].About.Unreadable != 4096 {
		t.Errorf("%+v, %v", all, err)
	}
}
