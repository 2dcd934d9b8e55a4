package backing_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"duet/blockrepl"
	"duet/blockrepl/backing"
	"duet/blockrepl/blocktest"
)

func newFile(t *testing.T, size int64) *backing.File {
	t.Helper()
	f, err := backing.CreateFile(filepath.Join(t.TempDir(), "image"), size)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func TestFile(t *testing.T) {
	blocktest.Device(t, func(t *testing.T) blockrepl.Device { return newFile(t, blocktest.DeviceSize) })
}

func TestOpenErrors(t *testing.T) {
	dir := t.TempDir()
	odd := filepath.Join(dir, "odd")
	empty := filepath.Join(dir, "empty")
	good := filepath.Join(dir, "good")
	for path, size := range map[string]int{odd: 1000, empty: 0, good: 4096} {
		if err := os.WriteFile(path, make([]byte, size), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name string
		path string
		size int64
		want error
	}{
		{"missing", filepath.Join(dir, "missing"), 0, fs.ErrNotExist},
		{"directory", dir, 0, backing.ErrKind},
		{"device that is no disk", os.DevNull, 0, backing.ErrKind},
		{"odd size", odd, 0, backing.ErrSize},
		{"empty", empty, 0, backing.ErrSize},
		{"other size", good, 8192, backing.ErrSize},
		{"good", good, 4096, nil},
	} {
		f, err := backing.OpenFile(c.path, c.size)
		if !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
		if err == nil {
			f.Close()
		}
	}
	for _, size := range []int64{0, -512, 1000} {
		path := filepath.Join(dir, "new")
		if _, err := backing.CreateFile(path, size); !errors.Is(err, backing.ErrSize) {
			t.Errorf("create %d bytes: %v", size, err)
		}
		if _, err := os.Stat(path); err == nil {
			t.Errorf("create %d bytes left a file", size)
		}
	}
	if _, err := backing.CreateFile(good, 4096); !errors.Is(err, fs.ErrExist) {
		t.Errorf("create over a file: %v", err)
	}
}

func TestCloseAndReopen(t *testing.T) {
	f := newFile(t, 1<<20)
	data := bytes.Repeat([]byte{9}, 4096)
	if _, err := f.WriteAt(data, 512); err != nil {
		t.Fatal(err)
	}
	if _, err := backing.OpenFile(f.Path(), 0); !errors.Is(err, backing.ErrInUse) {
		t.Errorf("second open: %v, want ErrInUse", err)
	}
	for range 2 {
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := f.ReadAt(data, 0); err == nil {
		t.Error("read after close")
	}
	if err := f.Flush(); !errors.Is(err, backing.ErrClosed) {
		t.Errorf("flush after close: %v", err)
	}
	g, err := backing.OpenFile(f.Path(), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	got := make([]byte, 4096)
	if _, err := g.ReadAt(got, 512); err != nil || !bytes.Equal(got, data) {
		t.Errorf("after reopen: %v, %x…", err, got[:4])
	}
	info, err := os.Stat(f.Path())
	if err != nil || info.Mode().Perm()&0o077 != 0 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

// A file somebody cut short must give an error, not zeroes.
func TestShrunkFile(t *testing.T) {
	f := newFile(t, 1<<20)
	if err := os.Truncate(f.Path(), 4096); err != nil {
		t.Fatal(err)
	}
	p := make([]byte, 8192)
	if _, err := f.ReadAt(p, 0); err == nil {
		t.Error("short read without an error")
	}
	if f.TryReadAt(p, 0) {
		t.Error("short fast read")
	}
}
