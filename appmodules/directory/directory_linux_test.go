package directory

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// sh runs a shell command that has to succeed.
func sh(t *testing.T, format string, args ...any) string {
	t.Helper()
	text := fmt.Sprintf(format, args...)
	out, err := exec.Command("/bin/sh", "-ec", text).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", text, err, out)
	}
	return string(out)
}

// onEach runs a test on each file system that this host can make.
func onEach(t *testing.T, do func(t *testing.T, fileSystem, dir string)) {
	if os.Getuid() != 0 {
		t.Skip("only root mounts")
	}
	for fileSystem, maker := range makers {
		t.Run(fileSystem, func(t *testing.T) {
			if _, err := exec.LookPath(maker[0]); err != nil {
				t.Skip("no file system of it is made here: ", err)
			}
			dir, err := os.MkdirTemp("", "dva")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { os.RemoveAll(dir) })
			do(t, fileSystem, dir)
		})
	}
}

// image is a file of holes that is large enough for either.
func image(t *testing.T, dir string) string {
	t.Helper()
	path := filepath.Join(dir, "image")
	f, err := os.Create(path)
	if err == nil {
		err = errors.Join(f.Truncate(320<<20), f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// tree is a file system on a loop device, and two directories that lie on it, one with a blank. What is below their
// places is a file system of the test's own: code that is broken shuts that, or ends who uses it, and not the host.
func tree(t *testing.T, fileSystem, dir string) (Tree, string) {
	t.Helper()
	path := image(t, dir)
	dir = filepath.Join(dir, "below")
	sh(t, "mkdir %s; mount -t tmpfs dva %[1]s", dir)
	t.Cleanup(func() { sh(t, "umount -l %s", dir) })
	tr := Tree{FileSystem: fileSystem, At: filepath.Join(dir, "a t"),
		Directories: []string{filepath.Join(dir, "srv", "files"), filepath.Join(dir, "my \\ app")}}
	if err := Make(t.Context(), path, fileSystem); err != nil {
		t.Fatal(err)
	}
	if err := Fill(t.Context(), path, filepath.Join(dir, "fill"), tr.Directories); err != nil {
		t.Fatal(err)
	}
	device := strings.TrimSpace(sh(t, "losetup -f --show %s", path))
	t.Cleanup(func() {
		for _, at := range append(tr.Directories, filepath.Join(dir, "elsewhere"), tr.At) {
			for unix.Unmount(at, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW) == nil {
			}
		}
		sh(t, "losetup -d %s", device)
	})
	return tr, device
}

func mounted(t *testing.T, tr Tree, is, whole bool) {
	t.Helper()
	if haveIs, haveWhole, err := tr.Mounted(); err != nil || haveIs != is || haveWhole != whole {
		t.Fatalf("mounted %v, whole %v, %v; want %v, %v", haveIs, haveWhole, err, is, whole)
	}
}

func mount(t *testing.T, tr Tree, device string) {
	t.Helper()
	if err := tr.Mount(t.Context(), device); err != nil {
		t.Fatal(err)
	}
	mounted(t, tr, true, true)
}

// TestNothingIsOverwritten: an image that holds something is refused and stays as it is.
func TestNothingIsOverwritten(t *testing.T) {
	onEach(t, func(t *testing.T, fileSystem, dir string) {
		for what, put := range map[string]string{
			"ext4": "mkfs.ext4 -q -F %s",
			"dos": "{ head -c 450 /dev/zero;" +
				" printf '\\203\\0\\0\\0\\1\\0\\0\\0\\1\\0\\0\\0'; head -c 48 /dev/zero; printf '\\125\\252'; } |" +
				" dd of=%s conv=notrunc",
			"swap": "mkswap %s",
		} {
			path := image(t, dir)
			sh(t, put, path)
			sum := sh(t, "head -c 1M %s | sha256sum", path)
			err := Make(t.Context(), path, fileSystem)
			if !errors.Is(err, ErrNotEmpty) || !strings.Contains(err.Error(), what) {
				t.Errorf("%s: %v", what, err)
			}
			if sh(t, "head -c 1M %s | sha256sum", path) != sum {
				t.Errorf("%s: it has changed", what)
			}
		}
		path := image(t, dir)
		if err := Make(t.Context(), path, fileSystem); err != nil {
			t.Fatal(err)
		}
		if held, err := Held(t.Context(), path); held != fileSystem || err != nil {
			t.Errorf("it has %q, %v", held, err)
		}
		if err := Make(t.Context(), path, fileSystem); !errors.Is(err, ErrNotEmpty) {
			t.Errorf("a second time: %v", err)
		}
		if Make(t.Context(), path, "zfs") == nil || Make(t.Context(), path+"none", fileSystem) == nil {
			t.Error("of nothing something was made")
		}
	})
}

// TestFillKeepsAll: what `duet module install` takes in is what was there: owners, modes, times, links, holes,
// attributes, access lists, what is no file, and every name.
func TestFillKeepsAll(t *testing.T) {
	onEach(t, func(t *testing.T, fileSystem, dir string) {
		for _, tool := range []string{"setfattr", "getfattr", "setfacl", "getfacl"} {
			if _, err := exec.LookPath(tool); err != nil {
				t.Skip("this host makes no attributes: ", err)
			}
		}
		from, none := filepath.Join(dir, "in"), filepath.Join(dir, "none yet")
		sh(t, `mkdir -p %s/sub; cd %[1]s; chown 12:34 .; chmod 2751 .
			echo a >a; chown 1234:5678 a; chmod 4751 a; ln a sub/b; ln -s ../nowhere sub/c; ln -s /etc l
			truncate -s 64M hole; echo x | dd of=hole bs=1 seek=33554432 conv=notrunc 2>/dev/null
			setfattr -n user.k -v "a b" a; setfattr -n trusted.k -v r a; setfacl -m u:99:rx a; setfacl -d -m g:98:rwx sub
			mkfifo -m 640 fifo; mknod null c 1 3
			touch -- "-rf" " lead" "$(printf 'new\nline\377')" 'quote"\\' '*'
			touch -h -d '2001-02-03 04:05:06.789' a sub/c fifo sub .`, from)
		sock := filepath.Join(from, "sock")
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
		if err == nil {
			err = errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: sock}), unix.Close(fd))
		}
		if err != nil {
			t.Fatal(err)
		}
		sh(t, "touch -d '2001-02-03 04:05:06.789' %s", from)
		path := image(t, dir)
		at := filepath.Join(dir, "at")
		err = errors.Join(Make(t.Context(), path, fileSystem), Fill(t.Context(), path, at, []string{from, none}))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(at); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the place where it was mounted: %v", err)
		}
		sh(t, "mkdir %s; mount -o loop,ro %s %[1]s", at, path)
		t.Cleanup(func() { sh(t, "umount %s", at) })
		const list = `cd %s; export LC_ALL=C; find . -printf '%%p %%y %%m %%U:%%G %%T@ %%l\n' | sort
			find . -type f -exec sha256sum {} + | sort
			getfattr -R -h -d -m '^(user|trusted[.]k)' . | sort; getfacl -R -P -n . | sort`
		if was, is := sh(t, list, from), sh(t, list, filepath.Join(at, from)); was != is {
			t.Errorf("there was\n%q\nthere is\n%q", was, is)
		}
		var a, b unix.Stat_t
		err = errors.Join(unix.Stat(filepath.Join(at, from, "a"), &a), unix.Stat(filepath.Join(at, from, "sub/b"), &b))
		if err != nil || a.Ino != b.Ino || a.Nlink != 2 {
			t.Errorf("a hard link: %v, %d, %d of %d", err, a.Ino, b.Ino, a.Nlink)
		}
		if err := unix.Stat(filepath.Join(at, from, "hole"), &a); err != nil || a.Blocks*512 > 1<<20 {
			t.Errorf("a hole has %d blocks, %v", a.Blocks, err)
		}
		if i, err := os.Stat(filepath.Join(at, none)); err != nil || i.Mode() != os.ModeDir|0o755 {
			t.Errorf("what was not there: %v, %v", i, err)
		}
	})
}

// TestFillThatWasCut: it leaves nothing mounted, and what another one that died has left is in nobody's way.
func TestFillThatWasCut(t *testing.T) {
	onEach(t, func(t *testing.T, fileSystem, dir string) {
		path, at, from := image(t, dir), filepath.Join(dir, "at"), filepath.Join(dir, "in")
		if err := Make(t.Context(), path, fileSystem); err != nil {
			t.Fatal(err)
		}
		sh(t, "mkdir %s %s; mount -o loop %[3]s %[2]s", from, at, path)
		t.Cleanup(func() {
			for unix.Unmount(at, unix.MNT_DETACH) == nil {
			}
		})
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := Fill(ctx, path, at, []string{from}); !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
		if _, err := os.Stat(at); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is left: %v", at, err)
		}
	})
}

// TestMountAndUnmount: twice is fine, and what was written is there the next time.
func TestMountAndUnmount(t *testing.T) {
	onEach(t, func(t *testing.T, fileSystem, dir string) {
		tr, device := tree(t, fileSystem, dir)
		mounted(t, tr, false, false)
		for range 2 {
			mount(t, tr, device)
		}
		sh(t, "echo hello >'%s/f'; test -e '%s/f'", tr.Directories[1], filepath.Join(tr.At, tr.Directories[1]))
		sh(t, "umount '%s'", tr.Directories[0])
		mounted(t, tr, true, false)
		mount(t, tr, device)
		nobody := func(users string) { t.Errorf("used by %s", users) }
		for range 2 {
			if err := tr.Unmount(t.Context(), nobody); err != nil {
				t.Fatal(err)
			}
			mounted(t, tr, false, false)
		}
		if _, err := os.Stat(filepath.Join(tr.Directories[1], "f")); err == nil {
			t.Error("the file is seen without the volume")
		}
		mount(t, tr, device)
		sh(t, "grep hello '%s/f'", tr.Directories[1])
	})
}

// TestWhatIsNotTheTrees: something that somebody else has mounted, or a link, is not taken for the application's, and
// is left alone.
func TestWhatIsNotTheTrees(t *testing.T) {
	onEach(t, func(t *testing.T, fileSystem, dir string) {
		tr, device := tree(t, fileSystem, dir)
		foreign := tr.Directories[0]
		sh(t, "mkdir -p '%s'; mount -t tmpfs dva '%[1]s'; echo x >'%[1]s/f'", foreign)
		if err := tr.Mount(t.Context(), device); err == nil || !strings.Contains(err.Error(), "umount "+foreign) {
			t.Errorf("mounted over it: %v", err)
		}
		mounted(t, tr, false, false)
		if err := errors.Join(tr.Shut(), tr.Unmount(t.Context(), func(string) {})); err != nil {
			t.Errorf("of nothing: %v", err)
		}
		sh(t, "echo y >>'%s/f'; umount '%[1]s'", foreign)
		// The link leads to the test's own: code that is broken mounts over what it leads to.
		elsewhere := filepath.Join(dir, "below", "elsewhere")
		sh(t, "rmdir '%s'; mkdir %s; ln -s %[2]s '%[1]s'", foreign, elsewhere)
		if err := tr.Mount(t.Context(), device); err == nil || !strings.Contains(err.Error(), "leads to \""+elsewhere) {
			t.Errorf("a link: %v", err)
		}
		sh(t, "rm '%s'", foreign)
		mount(t, tr, device)
		sh(t, "umount '%s'", tr.At) // by hand: what is left is the volume's, what is below At is not
		user := uses1(t, fmt.Sprintf("exec 3>'%s/open'; echo ready; exec sleep 60", tr.Directories[1]))
		var told string
		if err := tr.Unmount(t.Context(), func(users string) { told += users }); err != nil || told != user.name() {
			t.Errorf("%v; asked to end: %s", err, told)
		}
	})
}

// user is a process that this test has begun.
type user struct {
	*exec.Cmd
	ended chan error
}

func (u user) name() string { return fmt.Sprintf("sleep (%d)", u.Process.Pid) }

// uses1 begins a shell that says ready when it has what it uses. It ends with the test.
func uses1(t *testing.T, text string) user {
	t.Helper()
	u := user{exec.Command("/bin/sh", "-c", text), make(chan error, 1)}
	out, err := u.StdoutPipe()
	if err == nil {
		err = u.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	line, _ := bufio.NewReader(out).ReadString('\n')
	go func() { u.ended <- u.Wait() }()
	t.Cleanup(func() { _ = u.Process.Kill() })
	if line != "ready\n" {
		t.Fatalf("it said %q", line)
	}
	for strings.Contains(text, "exec sleep") { // it is what it becomes next
		if name, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", u.Process.Pid)); string(name) == "sleep\n" {
			break
		}
		time.Sleep(time.Millisecond)
	}
	return u
}

// TestUnmountWithUsers: who uses a directory is named, asked to end, and ended if it does not; nobody else is.
func TestUnmountWithUsers(t *testing.T) {
	onEach(t, func(t *testing.T, fileSystem, dir string) {
		tr, device := tree(t, fileSystem, dir)
		mount(t, tr, device)
		polite := uses1(t, fmt.Sprintf("cd '%s'; echo ready; exec sleep 60", tr.Directories[1]))
		other := uses1(t, "cd /; echo ready; exec sleep 60")
		var told []string
		if err := tr.Unmount(t.Context(), func(users string) { told = append(told, users) }); err != nil {
			t.Fatal(err)
		}
		if len(told) != 1 || told[0] != polite.name() {
			t.Errorf("asked to end: %q", told)
		}
		select {
		case err := <-other.ended:
			t.Errorf("somebody else was ended: %v", err)
		default:
		}
		mount(t, tr, device)
		stubborn := uses1(t, fmt.Sprintf("exec 3>'%s/open'; trap '' TERM; echo ready; exec sleep 60", tr.Directories[0]))
		told = nil
		if err := tr.Unmount(t.Context(), func(users string) { told = append(told, users) }); err != nil {
			t.Fatal(err)
		}
		if len(told) != 2 || told[1] != stubborn.name() {
			t.Errorf("asked to end, then ended: %q", told)
		}
	})
}

// TestShut: nothing reaches the device after it although a process goes on to write; what was synced is there after the
// journal's replay. A file system that has shut itself is taken away too.
func TestShut(t *testing.T) {
	onEach(t, func(t *testing.T, fileSystem, dir string) {
		tr, device := tree(t, fileSystem, dir)
		mount(t, tr, device)
		sh(t, "cd '%s'; echo kept >kept; sync", tr.Directories[1])
		writer := uses1(t, fmt.Sprintf("cd '%s'; exec 3>open; echo ready; "+
			"while :; do echo x >&3; echo x >more; done 2>/dev/null", tr.Directories[1]))
		if err := tr.Shut(); err != nil {
			t.Fatal(err)
		}
		mounted(t, tr, false, false)
		written := func() string { return sh(t, "awk '{print $5, $7}' /sys/block/%s/stat", filepath.Base(device)) }
		was := written()
		for range 5 {
			sh(t, "sync; test $(sed 's/.*) //' /proc/%d/stat | cut -c1) != Z", writer.Process.Pid)
		}
		if is := written(); is != was {
			t.Error("something has reached the device")
		}
		if err := tr.Shut(); err != nil {
			t.Errorf("a second time: %v", err)
		}
		_ = writer.Process.Kill()
		<-writer.ended
		free(t, device)
		mount(t, tr, device)
		sh(t, "grep kept '%s/kept'", tr.Directories[1])

		d, err := os.Open(tr.At) // as it does itself after an error of its device
		if err == nil {
			err = errors.Join(unix.IoctlSetPointerInt(int(d.Fd()), shutdownIoctl, shutNow), d.Close())
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := tr.Shut(); err != nil {
			t.Errorf("one that has shut itself: %v", err)
		}
		mounted(t, tr, false, false)
		free(t, device)
		mount(t, tr, device)
		if err := tr.Unmount(t.Context(), func(string) {}); err != nil {
			t.Fatal(err)
		}
		sh(t, map[string]string{"ext4": "e2fsck -fn %s", "xfs": "xfs_repair -n %s"}[fileSystem], device)
	})
}

// free waits until no file system is on a device any more.
func free(t *testing.T, device string) {
	t.Helper()
	for until := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		f, err := os.OpenFile(device, os.O_RDONLY|unix.O_EXCL, 0)
		if err == nil {
			f.Close()
			return
		}
		if time.Now().After(until) {
			t.Fatal(err)
		}
	}
}

// TestPathsOfMounts: what proc(5) writes for a blank, a tab and a backslash is read.
func TestPathsOfMounts(t *testing.T) {
	for text, want := range map[string]string{`/a\040b`: "/a b", `/a\134040`: `/a\040`, `/\011`: "/\t", `/a\04`: `/a\04`,
		`/a\999`: `/a\999`} {
		if got := unescape(text); got != want {
			t.Errorf("%s: %q", text, got)
		}
	}
}
