package blockrepl

import (
	"context"
	"errors"
	"strings"
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

// A volume that may not write cannot be held, and says so at once: no flush ends in it.
func TestHoldOfAVolumeThatStands(t *testing.T) {
	for want, prepare := range map[State]func(q *pair){
		Detached: func(q *pair) { q.primary() },
		Frozen:   func(q *pair) { q.up().lose() },
	} {
		t.Run(want.String(), func(t *testing.T) {
			q := newPair(t, 6<<20)
			prepare(q)
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
			defer cancel()
			err := q.p.Hold(ctx)
			if !errors.Is(err, ErrState) || !strings.Contains(err.Error(), want.String()) {
				t.Fatalf("hold: %v", err)
			}
			q.p.mu.Lock()
			defer q.p.mu.Unlock()
			if q.p.stand.holding {
				t.Error("it is held")
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

// What waits for a flush of its own ends when the local copy fails in it: a verify that nobody could end kept the next
// one away. What it repaired is not durable, and does not count.
func TestFailureEndsVerify(t *testing.T) {
	q := newPair(t, 6<<20).up()
	q.write(0, fill(1, Sector))
	bad := errors.New("no space left on device")
	a, _ := q.disks()
	rot(q.b.dev, 0)
	a.mu.Lock()
	a.fail = bad
	a.mu.Unlock()
	if err := q.p.Verify(true); err != nil {
		t.Fatal(err)
	}
	if e := wantEvent[VerifyDone](q); !errors.Is(e.Err, bad) || e.Count != 1 || e.Repaired != 0 {
		t.Fatalf("%+v", e)
	}
}
