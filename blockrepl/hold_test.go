package blockrepl

import (
	"context"
	"errors"
	"testing"
	"time"
)

// A volume whose local copy has failed cannot be held, and says so at once: whoever moves it to the peer is waiting.
func TestHoldOfAFailedVolume(t *testing.T) {
	bad := errors.New("no space left on device")
	for _, c := range []struct {
		name string
		fail func(q *pair)
	}{
		{"flush", func(q *pair) {
			d := q.a.dev.(*disk)
			d.mu.Lock()
			d.fail = bad
			d.mu.Unlock()
			q.start(&Request{Op: OpFlush})
		}},
		{"log", func(q *pair) {
			q.a.log.mu.Lock()
			q.a.log.fail = bad
			q.a.log.mu.Unlock()
			q.start(write(0, fill(1, Sector)))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			q := newPair(t, 6<<20).up()
			c.fail(q)
			wantEvent[DeviceFailed](q)
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
			defer cancel()
			if err := q.p.Hold(ctx); !errors.Is(err, bad) {
				t.Fatalf("hold: %v", err)
			}
		})
	}
}

// One that fails while it is being held ends the hold.
func TestFailureEndsHold(t *testing.T) {
	q := newPair(t, 6<<20).up()
	d, bad := q.a.dev.(*disk), errors.New("bad sector")
	reached, release := make(chan struct{}), make(chan struct{})
	d.gate = func() {
		close(reached)
		<-release
	}
	go q.start(write(0, fill(1, Sector)))
	<-reached
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	held := make(chan error, 1)
	go func() { held <- q.p.Hold(ctx) }()
	eventually(t, "the hold begins", func() bool {
		q.p.mu.Lock()
		defer q.p.mu.Unlock()
		return q.p.stand.holding
	})
	d.mu.Lock()
	d.fail = bad
	d.mu.Unlock()
	close(release)
	if err := <-held; !errors.Is(err, bad) {
		t.Fatalf("hold: %v", err)
	}
}
