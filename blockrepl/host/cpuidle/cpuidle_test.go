package cpuidle

import (
	"context"
	"errors"
	"io"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

type held struct{ open *atomic.Int64 }

func (h held) Close() error { h.open.Add(-1); return nil }

// TestKeep: held while writes come fast, released soon after, not at all for a trickle.
func TestKeep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var writes atomic.Uint64
		var open atomic.Int64
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		ended := make(chan error, 1)
		go func() {
			ended <- Keep(ctx, writes.Load, func() (io.Closer, error) { open.Add(1); return held{&open}, nil })
		}()
		synctest.Wait()
		expect := func(when string, want int64) {
			t.Helper()
			synctest.Wait()
			if got := open.Load(); got != want {
				t.Fatalf("%s: held %d times, want %d", when, got, want)
			}
		}
		for range 20 { // fewer than worth in each interval
			writes.Add(worth - 1)
			time.Sleep(interval)
			expect("a trickle", 0)
		}
		for range 20 {
			writes.Add(worth)
			time.Sleep(interval)
		}
		expect("a writer", 1)
		time.Sleep(interval * (linger - 2))
		expect("a short pause", 1)
		time.Sleep(interval * 4)
		expect("a long pause", 0)
		writes.Add(worth)
		time.Sleep(interval)
		expect("the next writer", 1)
		cancel()
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
		expect("the end", 0)
	})
}

// TestKeepGivesUp: where it is not offered nothing is tried again.
func TestKeepGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var writes atomic.Uint64
		sorry := errors.New("not offered")
		ended := make(chan error, 1)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() {
			ended <- Keep(ctx, writes.Load, func() (io.Closer, error) { return nil, sorry })
		}()
		synctest.Wait()
		writes.Add(worth)
		if err := <-ended; !errors.Is(err, sorry) {
			t.Fatalf("ended with %v", err)
		}
	})
}

// TestHold asks the real kernel.
func TestHold(t *testing.T) {
	h, err := Hold()
	if err != nil {
		t.Skipf("this computer does not let a process ask for fast wake-ups: %v", err)
	}
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
}
