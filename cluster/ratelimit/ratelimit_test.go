package ratelimit

import (
	"context"
	"errors"
	"net"
	"testing"
	"testing/synctest"
	"time"
)

func TestBrake(t *testing.T) {
	var b Brake
	now := time.Unix(1e9, 0)
	for range 30 { // slow enough
		b.Wrong(now)
		now = now.Add(8 * time.Second)
	}
	if err := b.Check(now); err != nil {
		t.Errorf("on although tries were slow: %v", err)
	}
	for range maxTries {
		b.Wrong(now)
	}
	if err := b.Check(now); !errors.Is(err, ErrTooManyTries) {
		t.Errorf("off after a burst: %v", err)
	}
	if err := b.Check(now.Add(penalty)); err != nil {
		t.Errorf("on for too long: %v", err)
	}
}

// TestGate: bounds hold, those who wait come in their order, a source that is full keeps
// nobody else out, and who gives up waiting leaves nothing behind.
func TestGate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewGate(Limits{All: 3, Each: 2, Queue: 2})
		for i, ok := range []bool{true, true, false} {
			if g.Enter("a") != ok {
				t.Fatalf("entry %d of a: %v", i, !ok)
			}
		}
		var came []string
		wait := func(who, src string) {
			go func() {
				if err := g.Wait(t.Context(), src); err != nil {
					t.Error(who, err)
				}
				came = append(came, who)
			}()
			synctest.Wait()
		}
		wait("a1", "a")
		wait("a2", "a")
		if err := g.Wait(t.Context(), "a"); !errors.Is(err, ErrFull) {
			t.Errorf("a third one waits: %v", err)
		}
		wait("b1", "b") // has room
		wait("b2", "b") // All is reached
		ctx, cancel := context.WithCancel(t.Context())
		gaveUp := make(chan error)
		go func() { gaveUp <- g.Wait(ctx, "c") }()
		synctest.Wait()
		cancel()
		if err := <-gaveUp; !errors.Is(err, context.Canceled) {
			t.Errorf("gave up: %v", err)
		}
		for range 2 {
			g.Leave("a")
			synctest.Wait()
		}
		g.Leave("b")
		synctest.Wait()
		if want := []string{"b1", "a1", "a2", "b2"}; len(came) != 4 || came[0] != want[0] || came[1] != want[1] ||
			came[2] != want[2] || came[3] != want[3] {
			t.Errorf("they came as %v, want %v", came, want)
		}
		for _, src := range []string{"a", "a", "b"} {
			g.Leave(src)
		}
		if g.in != 0 || len(g.by) != 0 || len(g.waiting) != 0 {
			t.Errorf("left behind: %+v", g)
		}
	})
}

func TestListener(t *testing.T) {
	raw, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln := Listener(raw, Limits{All: 8, Each: 1})
	accepted := make(chan net.Conn, 2)
	go func() {
		defer close(accepted)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			accepted <- c
		}
	}()
	dial := func() net.Conn {
		c, err := net.Dial("tcp", raw.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	dial()
	first := <-accepted
	if _, err := dial().Read(make([]byte, 1)); err == nil {
		t.Error("a second one from the same source was not hung up on")
	}
	first.Close()
	first.Close() // counts once
	dial()
	if c := <-accepted; c == nil {
		t.Error("nobody came in after the first had left")
	} else {
		c.Close()
	}
	ln.Close()
}
