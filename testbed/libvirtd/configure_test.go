package libvirtd

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"testing/fstest"
)

// TestFill: a directory that is new gets everything, and one with something in it is left alone.
func TestFill(t *testing.T) {
	from := fstest.MapFS{"a.conf": {Data: []byte("a")}, "qemu/b.xml": {Data: []byte("b")}}
	dir := t.TempDir()
	etc := filepath.Join(dir, "etc")
	if err := os.Mkdir(etc, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := fill(etc, fstest.MapFS{"a.conf": {Data: []byte("a")}, "z": {Mode: fs.ModeDevice}}); err == nil {
		t.Fatal("a device was copied")
	}
	for range 2 {
		if err := fill(etc, from); err != nil {
			t.Fatal(err)
		}
		if err := fstest.TestFS(os.DirFS(etc), "a.conf", "qemu/b.xml"); err != nil {
			t.Error(err)
		}
		from = fstest.MapFS{"a.conf": {Data: []byte("new")}}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("left are %v (%v)", left, err)
	}
	if text, err := os.ReadFile(filepath.Join(etc, "a.conf")); string(text) != "a" {
		t.Errorf("it is %q (%v)", text, err)
	}
}
