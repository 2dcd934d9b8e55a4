package nbd_test

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"

	"duet/blockrepl/blocktest"
	"duet/blockrepl/nbd"

	"golang.org/x/sys/unix"
)

// TestSocketOwner: whom the old socket was given to can connect to the new one.
func TestSocketOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to give a socket away")
	}
	sock := socketPath(t)
	for _, want := range []uint32{0, 4711, 4711} {
		s := nbd.New(nbd.Options{Socket: sock, Name: "vol", Log: testLog(t)})
		if err := s.Listen(); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(sock)
		if err != nil {
			t.Fatal(err)
		}
		if st := info.Sys().(*syscall.Stat_t); st.Uid != want || st.Gid != want || info.Mode().Perm() != 0o600 {
			t.Errorf("the socket belongs to %d:%d with mode %v, want %d", st.Uid, st.Gid, info.Mode(), want)
		}
		if err := errors.Join(os.Lchown(sock, 4711, 4711), s.Close()); err != nil {
			t.Fatal(err)
		}
	}
}

// TestListenBesideABusyServer: who has no room for another client lives, and keeps its socket.
func TestListenBesideABusyServer(t *testing.T) {
	sock := socketPath(t)
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: sock}), unix.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	waiting, err := net.Dial("unix", sock)
	if err != nil {
		t.Fatal(err)
	}
	defer waiting.Close()
	if c, err := net.Dial("unix", sock); !errors.Is(err, syscall.EAGAIN) {
		if err == nil {
			c.Close()
		}
		t.Fatalf("there is room for one more: %v", err)
	}
	before, err := os.Lstat(sock)
	if err != nil {
		t.Fatal(err)
	}
	s := nbd.New(nbd.Options{Socket: sock, Name: "vol", Log: testLog(t)})
	defer s.Close()
	if err := s.Listen(); !errors.Is(err, nbd.ErrInUse) {
		t.Errorf("listen: %v", err)
	}
	if after, err := os.Lstat(sock); err != nil || !os.SameFile(before, after) {
		t.Errorf("its socket was replaced: %v", err)
	}
}

// TestAdmit: a process that a volume is not for learns nothing of it.
func TestAdmit(t *testing.T) {
	sock := socketPath(t)
	asked := make(chan nbd.Peer, 1)
	s := nbd.New(nbd.Options{Socket: sock, Name: "vol", Log: testLog(t), Admit: func(p nbd.Peer) error {
		asked <- p
		return errors.New("not for you")
	}})
	if err := s.Listen(); err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(blocktest.NewHandQueue(4)) }()
	c, err := net.Dial("unix", sock)
	if err != nil {
		t.Fatal(err)
	}
	if said, err := io.ReadAll(c); err != nil || len(said) != 0 {
		t.Errorf("it was told %q, %v", said, err)
	}
	if err := errors.Join(c.Close(), s.Close(), <-served); err != nil {
		t.Fatal(err)
	}
	if got, want := <-asked, (nbd.Peer{PID: os.Getpid(), UID: uint32(os.Getuid())}); got != want {
		t.Errorf("asked for %+v, want %+v", got, want)
	}
}
