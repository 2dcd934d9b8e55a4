package host

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"duet/blockrepl"
	"duet/blockrepl/backing"
	"duet/blockrepl/blocktest"
	"duet/blockrepl/nbd"
)

// TestMain is the process behind a device, too, when it is run as that.
func TestMain(m *testing.M) {
	if len(os.Args) == 5 && os.Args[1] == "serve" {
		if err := IntoWritePath(); err != nil {
			fmt.Fprintln(os.Stderr, "not in the write path:", err) // a container may lack CAP_SYS_RESOURCE
		}
		if err := Serve(os.Args[3], os.Args[4], slog.Default()); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// counted counts what reaches a volume.
type counted struct {
	*backing.File
	flushes, discards, zeroes atomic.Int64
}

func (c *counted) Flush() error               { c.flushes.Add(1); return c.File.Flush() }
func (c *counted) Discard(off, n int64) error { c.discards.Add(n); return c.File.Discard(off, n) }
func (c *counted) Zero(off, n int64) error    { c.zeroes.Add(n); return c.File.Zero(off, n) }

// stand is a volume that is served, and a driver.
type stand struct {
	*Loop
	t    *testing.T
	img  *counted
	sock string
	stop func()
}

const volumeSize = 256 << 20

func newStand(t *testing.T) *stand {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("only root makes loop devices")
	}
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Skip("this kernel has no FUSE: ", err)
	}
	dir, err := os.MkdirTemp("", "dh")
	if err != nil {
		t.Fatal(err)
	}
	img, err := backing.CreateFile(filepath.Join(dir, "image"), volumeSize)
	if err != nil {
		t.Fatal(err)
	}
	s := &stand{Loop: &Loop{Dir: filepath.Join(dir, "disks"), Program: []string{os.Args[0], "serve"},
		Logger: slog.Default()}, t: t, img: &counted{File: img}, sock: filepath.Join(dir, "s")}
	s.serve()
	t.Cleanup(func() {
		if err := s.Detach(context.Background(), "pg"); err != nil {
			t.Error(err)
		}
		s.stop()
		img.Close()
		os.RemoveAll(dir)
	})
	return s
}

// serve serves the volume until stop, which drops what is in flight as the death of a daemon does.
func (s *stand) serve() {
	s.t.Helper()
	srv := nbd.New(nbd.Options{Socket: s.sock, Name: "vol", Log: slog.New(slog.DiscardHandler)})
	if err := srv.Listen(); err != nil {
		s.t.Fatal(err)
	}
	q := blocktest.StartQueue(s.img, 4)
	served := make(chan error, 1)
	go func() { served <- srv.Serve(q) }()
	s.stop = func() {
		q.Close()
		if err := errors.Join(srv.Close(), <-served); err != nil {
			s.t.Error(err)
		}
	}
}

func (s *stand) attach() string {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 10*time.Second)
	defer cancel()
	device, err := s.Attach(ctx, "pg", s.sock, "vol")
	if err != nil {
		s.t.Fatal(err)
	}
	return device
}

// run runs a command that has to succeed.
func run(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
}

// TestLoopHasAFileSystem: a file system lives on the device, its flushes, discards and zeroes reach the volume, and
// what was written is in the image.
func TestLoopHasAFileSystem(t *testing.T) {
	s := newStand(t)
	device := s.attach()
	if again := s.attach(); again != device {
		t.Errorf("a second time it is %s, not %s", again, device)
	}
	at := t.TempDir()
	run(t, "mkfs.ext4", "-q", "-F", device)
	run(t, "mount", device, at)
	want := bytes.Repeat([]byte("duet"), 1<<20)
	if err := os.WriteFile(filepath.Join(at, "f"), want, 0o600); err != nil {
		t.Fatal(err)
	}
	before := s.img.flushes.Load()
	f, err := os.Open(filepath.Join(at, "f"))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		t.Fatal(err)
	}
	if s.img.flushes.Load() == before {
		t.Error("fsync made no flush of the volume")
	}
	discarded := s.img.discards.Load()
	run(t, "fstrim", at)
	if s.img.discards.Load() < discarded+volumeSize/2 {
		t.Errorf("fstrim discarded %d bytes", s.img.discards.Load()-discarded)
	}
	if err := s.Detach(briefly(t), "pg"); err == nil {
		t.Error("a device that is mounted was taken away")
	}
	run(t, "umount", at)
	run(t, "blkdiscard", "-f", "-z", "-o", fmt.Sprint(volumeSize-(8<<20)), "-l", fmt.Sprint(4<<20), device)
	if s.img.zeroes.Load() < 4<<20 {
		t.Errorf("blkdiscard -z zeroed %d bytes of the volume", s.img.zeroes.Load())
	}
	if err := s.Detach(t.Context(), "pg"); err != nil {
		t.Fatal(err)
	}
	if left, err := s.Attached("pg"); left != "" || err != nil {
		t.Errorf("%s is left, %v", left, err)
	}
	raw := exec.Command("debugfs", "-R", "cat f", s.img.Path())
	got, err := raw.Output()
	if err != nil || sha256.Sum256(got) != sha256.Sum256(want) {
		t.Errorf("the image has %d bytes of the file, %v", len(got), err)
	}
}

// briefly is a context that ends soon.
func briefly(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	t.Cleanup(cancel)
	return ctx
}

// TestHoldsNoOtherFileSystem: the process behind a device keeps none in use that is mounted, now or later: neither that
// on its own device, whose end would wait for it, nor one that somebody wants to unmount.
func TestHoldsNoOtherFileSystem(t *testing.T) {
	s := newStand(t)
	before, after := t.TempDir(), t.TempDir()
	run(t, "mount", "-t", "tmpfs", "tmpfs", before)
	defer run(t, "umount", before)
	device := s.attach()
	run(t, "mkfs.ext4", "-q", "-F", device)
	run(t, "mount", device, after)
	defer run(t, "umount", after)
	held, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", s.process(t)))
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{before, after, s.dir("pg"), "/proc", "/sys"} {
		if strings.Contains(string(held), " "+dir+" ") {
			t.Errorf("it holds %s", dir)
		}
	}
}

// TestLoopOutlivesTheDaemon: while a file system is written, whoever serves the volume dies again and again. Nobody
// there sees an error, and the file system is whole.
func TestLoopOutlivesTheDaemon(t *testing.T) {
	s := newStand(t)
	device := s.attach()
	at := t.TempDir()
	run(t, "mkfs.ext4", "-q", "-F", device)
	run(t, "mount", device, at)
	var all sync.WaitGroup
	progress := make(chan struct{})
	stop := make(chan struct{})
	for w := range 2 {
		all.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				case progress <- struct{}{}:
				}
				if err := synced(filepath.Join(at, fmt.Sprintf("f%d", w)), i); err != nil {
					t.Errorf("writer %d: %v", w, err)
					return
				}
			}
		})
	}
	for range 5 {
		for range 20 {
			<-progress
		}
		s.stop()
		s.serve()
	}
	for range 20 {
		<-progress
	}
	close(stop)
	all.Wait()
	run(t, "umount", at)
	run(t, "e2fsck", "-fn", device)
}

// synced appends a line to a file, makes it durable, and reads all of it past the cache.
func synced(path string, i int) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := fmt.Fprintf(f, "%07d\n", i); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		return err
	}
	all, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<20))
	if err == nil && len(all) != 8*(i+1) {
		err = fmt.Errorf("it has %d bytes after line %d", len(all), i)
	}
	return err
}

// TestServeByHand: who runs the process behind a device by hand does not lose the file systems of the host.
func TestServeByHand(t *testing.T) {
	if err := alone(); !errors.Is(err, errByHand) {
		t.Errorf("here it would unmount everything: %v", err)
	}
}

// TestLoopOfADeadProcess: what a process that died left behind is taken away, and the volume attached anew.
func TestLoopOfADeadProcess(t *testing.T) {
	s := newStand(t)
	s.attach()
	pid := s.process(t)
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for s.lives("pg") {
		time.Sleep(time.Millisecond)
	}
	if device, err := s.Attached("pg"); device != "" || err != nil {
		t.Errorf("%s is attached though nobody is behind it (%v)", device, err)
	}
	device := s.attach()
	if err := os.WriteFile(device, make([]byte, sector), 0); err != nil {
		t.Error(err)
	}
}

// process is the one behind the device: it has its directory in its command line.
func (s *stand) process(t *testing.T) int {
	t.Helper()
	lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, l := range lines {
		text, err := os.ReadFile(l)
		if err == nil && bytes.Contains(text, []byte(s.dir("pg"))) {
			var pid int
			fmt.Sscanf(l, "/proc/%d/cmdline", &pid)
			return pid
		}
	}
	t.Fatal("no process is behind the device")
	return 0
}

// TestNobodyServes: where nobody serves the volume that is said, and nothing is left.
func TestNobodyServes(t *testing.T) {
	s := newStand(t)
	if _, err := s.Attach(t.Context(), "pg", s.sock+"x", "vol"); err == nil {
		t.Error("a device of what nobody serves")
	}
	if s.lives("pg") {
		t.Error("a file is left")
	}
}

var _ blockrepl.Device = (*counted)(nil)
