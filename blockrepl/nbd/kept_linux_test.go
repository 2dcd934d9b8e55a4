package nbd_test

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"duet/blockrepl/backing"
	"duet/blockrepl/blocktest"
	"duet/blockrepl/fdstore"
	"duet/blockrepl/nbd"
)

// TestKept: who connects while no Server serves waits for the next one, which asks whether he may; one that is let go
// refuses.
func TestKept(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	keeper := fdstore.Open(slog.New(slog.DiscardHandler))
	dev, err := backing.CreateFile(t.TempDir()+"/image", 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close()
	sock := socketPath(t)
	defer keeper.Drop(sock)
	asked := make(chan nbd.Peer, 2)
	var admit error
	// serves runs a Server of its own while do works.
	serves := func(do func()) {
		t.Helper()
		verdict := admit
		s := nbd.New(nbd.Options{Socket: sock, Name: "vol", Keeper: keeper, Log: testLog(t), Admit: func(p nbd.Peer) error {
			asked <- p
			return verdict
		}})
		q := blocktest.StartQueue(dev, 4)
		if err := s.Listen(); err != nil {
			t.Fatal(err)
		}
		served := make(chan error, 1)
		go func() { served <- s.Serve(q) }()
		do()
		if err := errors.Join(s.Close(), <-served); err != nil {
			t.Fatal(err)
		}
		q.Close()
	}
	dial := func() net.Conn {
		t.Helper()
		c, err := net.Dial("unix", sock)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		return c
	}
	greeted := func(c net.Conn) error {
		_, err := io.ReadFull(c, make([]byte, 18))
		return err
	}

	serves(func() {
		if err := greeted(dial()); err != nil {
			t.Error(err)
		}
	})
	first, _ := os.Stat(sock)
	<-asked
	waits := dial()
	select {
	case <-asked:
		t.Fatal("a Server that is closed asks")
	default:
	}
	serves(func() {
		if err := greeted(waits); err != nil {
			t.Errorf("who waited while nobody served: %v", err)
		}
		if got, want := <-asked, (nbd.Peer{PID: os.Getpid(), UID: uint32(os.Getuid())}); got != want {
			t.Errorf("asked for %+v, want %+v", got, want)
		}
	})
	if second, err := os.Stat(sock); err != nil || !os.SameFile(first, second) {
		t.Errorf("the next Server has a socket of its own (%v)", err)
	}

	stranger := dial()
	admit = errors.New("not for you")
	serves(func() {
		if err := greeted(stranger); !errors.Is(err, io.EOF) {
			t.Errorf("a stranger who waited while nobody served: %v", err)
		}
		<-asked
	})

	waits = dial()
	keeper.Drop(sock)
	if err := greeted(waits); !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("who waits for a socket that is let go: %v", err)
	}
	if _, err := net.Dial("unix", sock); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("who comes to a socket that was let go: %v", err)
	}
	admit = nil
	serves(func() { // it makes a new one
		if err := greeted(dial()); err != nil {
			t.Error(err)
		}
		<-asked
	})
}
