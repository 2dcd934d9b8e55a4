package directory

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// image is an empty image.
func image(t *testing.T, size int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "image")
	f, err := os.Create(path)
	if err == nil {
		err = errors.Join(f.Truncate(size), f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestMakeOverwritesNothing: a file system is made where there is nothing, and nowhere else.
func TestMakeOverwritesNothing(t *testing.T) {
	for _, fs := range []string{"ext4", "xfs"} {
		t.Run(fs, func(t *testing.T) {
			if _, err := exec.LookPath("mkfs." + fs); err != nil {
				t.Skip("mkfs."+fs+" is not installed: ", err)
			}
			path := image(t, 400<<20)
			must(t, Make(t.Context(), path, fs))
			if held, err := Held(t.Context(), path); held != fs || err != nil {
				t.Errorf("it has %q, %v", held, err)
			}
			if err := Make(t.Context(), path, fs); !errors.Is(err, ErrNotEmpty) {
				t.Errorf("a second time: %v", err)
			}
		})
	}
	path := image(t, 64<<20)
	if out, err := exec.Command("mkswap", path).CombinedOutput(); err != nil {
		t.Fatalf("mkswap: %v\n%s", err, out)
	}
	if err := Make(t.Context(), path, "ext4"); !errors.Is(err, ErrNotEmpty) {
		t.Errorf("over a swap area: %v", err)
	}
	if err := Make(t.Context(), path, "ntfs"); err == nil {
		t.Error("a file system that there is not")
	}
}

// TestFillKeepsAll: what directories hold is on the volume as it was: owners by number, modes, times, links, holes,
// attributes, pipes and odd names; and it is where it was once the volume is mounted.
func TestFillKeepsAll(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root mounts")
	}
	dir := filepath.Join(t.TempDir(), "data dir")
	at := func(name string) string { return filepath.Join(dir, name) }
	must(t, os.MkdirAll(at("sub"), 0o750))
	must(t, os.WriteFile(at("sub/a b\\n"), []byte("text"), 0o640))
	must(t, os.Chown(at("sub/a b\\n"), 12345, 54321))
	must(t, os.Link(at("sub/a b\\n"), at("link")))
	must(t, os.Symlink("../else where", at("symlink")))
	must(t, unix.Mkfifo(at("pipe"), 0o600))
	must(t, unix.Setxattr(at("link"), "user.duet", []byte("attribute"), 0))
	hole, err := os.Create(at("hole"))
	must(t, err)
	must(t, errors.Join(hole.Truncate(16<<20), hole.Close()))
	must(t, os.Chmod(dir, 0o711))

	path := image(t, 64<<20)
	must(t, Make(t.Context(), path, "ext4"))
	missing := filepath.Join(t.TempDir(), "new")
	must(t, Fill(t.Context(), path, filepath.Join(t.TempDir(), "fill"), []string{dir, missing}))

	loop := exec.Command("losetup", "--find", "--show", path)
	out, err := loop.Output()
	must(t, err)
	device := string(out[:len(out)-1])
	t.Cleanup(func() { exec.Command("losetup", "-d", device).Run() })
	tree := Tree{FileSystem: "ext4", At: filepath.Join(t.TempDir(), "mount"), Directories: []string{dir, missing}}
	t.Cleanup(func() {
		if err := tree.Unmount(t.Context(), func(string) {}); err != nil {
			t.Error(err)
		}
	})
	must(t, os.WriteFile(at("only on the host"), nil, 0o600))
	for range 2 {
		must(t, tree.Mount(t.Context(), device))
	}
	if is, whole, err := tree.Mounted(); !is || !whole || err != nil {
		t.Errorf("mounted %v, whole %v, %v", is, whole, err)
	}
	if _, err := os.Stat(at("only on the host")); err == nil {
		t.Error("the directory is that of the host")
	}
	var file, link, dirSt, holeSt unix.Stat_t
	must(t, errors.Join(unix.Stat(at("sub/a b\\n"), &file), unix.Stat(at("link"), &link), unix.Stat(dir, &dirSt),
		unix.Stat(at("hole"), &holeSt)))
	if file.Uid != 12345 || file.Gid != 54321 || file.Mode&0o777 != 0o640 || file.Ino != link.Ino || file.Nlink != 2 {
		t.Errorf("a file: %+v, its link %+v", file, link)
	}
	if dirSt.Mode&0o777 != 0o711 || holeSt.Size != 16<<20 || holeSt.Blocks > 8 {
		t.Errorf("the directory is %o, the hole has %d of %d blocks", dirSt.Mode, holeSt.Blocks, holeSt.Size/512)
	}
	value := make([]byte, 20)
	if n, err := unix.Getxattr(at("link"), "user.duet", value); err != nil || string(value[:n]) != "attribute" {
		t.Errorf("an attribute is %q, %v", value, err)
	}
	if to, err := os.Readlink(at("symlink")); to != "../else where" || err != nil {
		t.Errorf("a link leads to %q, %v", to, err)
	}
	if info, err := os.Stat(at("pipe")); err != nil || info.Mode().Type() != os.ModeNamedPipe {
		t.Errorf("a pipe is %v", err)
	}
	if entries, err := os.ReadDir(missing); err != nil || len(entries) != 0 {
		t.Errorf("a directory that was not there: %v, %v", entries, err)
	}
}
