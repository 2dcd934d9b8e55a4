package badgerlog

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"duet/blockrepl"
)

// smallDisk mounts a tmpfs of so many bytes.
func smallDisk(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Skipf("needs a small file system of its own: mount tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// fill takes all free space and returns how to give it back.
func fill(t *testing.T, dir string) (free func()) {
	t.Helper()
	path := filepath.Join(dir, "filler")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for buf := make([]byte, 64<<10); ; {
		if _, err := f.Write(buf); err != nil {
			if len(buf) == 4096 {
				break
			}
			buf = buf[:4096]
		}
	}
	return func() {
		if err := os.Remove(path); err != nil {
			t.Error(err)
		}
	}
}

// awaitFlush waits until badger has written its full memory tables out.
func awaitFlush(t *testing.T, dir string) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for range 1000 {
		logs, err := filepath.Glob(filepath.Join(dir, "*.mem"))
		if err != nil {
			t.Fatal(err)
		}
		if len(logs) == 1 {
			return
		}
		<-tick.C
	}
	t.Fatal("badger does not flush")
}

func restart(t *testing.T, s *Store, cfg Config) *Store {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestFullDisk fills the disk while commits run. A mistake here does not fail
// the test but kills the test binary with SIGBUS.
func TestFullDisk(t *testing.T) {
	mnt := smallDisk(t, "80m")
	dir := filepath.Join(mnt, "store")
	cfg := Config{Dir: dir, MinFree: 12 << 20}
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(s.room.ballast()); err != nil {
		t.Fatal(err)
	}
	acked := uint64(0)
	put := func() error {
		// Large enough to rotate the memory table every few commits.
		err := s.Put(map[string][]byte{"a": make([]byte, maxValue), "b": make([]byte, maxValue)})
		if err == nil {
			err = commit(s.Log("v"), nil, blockrepl.Entry{Extent: 7, Dirty: acked + 1})
		}
		if err == nil {
			acked++
		}
		return err
	}
	for round := range 3 {
		var free func()
		for i := range 20 {
			if i == 10 {
				awaitFlush(t, dir) // what a flush needs was free when it began
				free = fill(t, mnt)
			}
			err := put()
			if full := errors.Is(err, ErrFull); full != (i >= 10) {
				t.Fatalf("round %d, commit %d: %v", round, i, err)
			}
			if err != nil && (!strings.Contains(err.Error(), dir) || !strings.Contains(err.Error(), "KiB free")) {
				t.Fatalf("unclear error: %v", err)
			}
		}
		if es, _, err := s.Log("v").Load(); err != nil || es[0].Dirty != acked {
			t.Fatalf("round %d: cannot read on a full disk: %v", round, err)
		}
		// A restart works on a full disk too, thanks to the ballast.
		for range 2 * (round % 2) {
			s = restart(t, s, cfg)
		}
		if _, err := os.Stat(s.room.ballast()); err != nil {
			t.Errorf("round %d: %v", round, err)
		}
		free()
		if err := put(); err != nil {
			t.Fatalf("round %d: after space was freed: %v", round, err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestOpenWithoutRoom(t *testing.T) {
	mnt := smallDisk(t, "40m")
	free := fill(t, mnt)
	cfg := Config{Dir: filepath.Join(mnt, "store"), MinFree: 1 << 20}
	if _, err := Open(cfg); !errors.Is(err, ErrFull) {
		t.Fatalf("open on a full disk: %v", err)
	}
	free()
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}
