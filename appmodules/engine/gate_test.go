package engine

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestGateOrder: of VMs that want to start at the same moment the lowest order goes first; the next waits until all of
// it have started and their delay has passed. Those of one order do not wait for each other.
func TestGateOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, began := NewGate(Real{}), time.Now()
		var mu sync.Mutex
		var at []time.Duration
		var orders []int
		for _, s := range []struct {
			order       int
			take, delay time.Duration
		}{
			{20, time.Second, 0}, {10, time.Second, 5 * time.Second}, {10, 3 * time.Second, 0}, {30, time.Second, 0},
		} {
			go func() {
				leave, err := g.Enter(t.Context(), s.order)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				at, orders = append(at, time.Since(began)), append(orders, s.order)
				mu.Unlock()
				time.Sleep(s.take) // its start
				leave(s.delay)
			}()
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		want := []time.Duration{gatherTime, gatherTime, gatherTime + 6*time.Second, gatherTime + 7*time.Second}
		if !slices.Equal(orders, []int{10, 10, 20, 30}) || !slices.Equal(at, want) {
			t.Errorf("orders %v started at %v, want them at %v", orders, at, want)
		}
	})
}

// TestGateLetsGo: a VM whose start is called off, waiting or not, keeps nobody, and one that comes alone waits for
// nobody, whatever its order.
func TestGateLetsGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewGate(Real{})
		leave, err := g.Enter(t.Context(), 10)
		if err != nil {
			t.Fatal(err)
		}
		gone, cancel := context.WithCancel(t.Context())
		waits := make(chan error, 1)
		go func() {
			_, err := g.Enter(gone, 20)
			waits <- err
		}()
		last := make(chan time.Time, 1)
		go func() {
			leave, err := g.Enter(t.Context(), 30)
			if err != nil {
				t.Error(err)
				return
			}
			last <- time.Now()
			leave(0)
		}()
		time.Sleep(time.Hour)
		synctest.Wait()
		if len(waits)+len(last) != 0 {
			t.Fatal("a later order did not wait")
		}
		cancel()
		if err := <-waits; !errors.Is(err, context.Canceled) {
			t.Errorf("a start that was called off: %v", err)
		}
		began := time.Now()
		leave(time.Second)
		if took := (<-last).Sub(began); took != time.Second {
			t.Errorf("the last went after %v", took)
		}
		began = time.Now()
		if _, err := g.Enter(t.Context(), 99); err != nil || time.Since(began) != gatherTime {
			t.Errorf("one that comes alone waited for %v: %v", time.Since(began), err)
		}
	})
}

// TestResumes: a VM that its disk gave an error is let go on at once a few times, then ever more seldom, and in the end
// no more; after a good minute an error is a new one.
func TestResumes(t *testing.T) {
	var r resumes
	now := time.Unix(0, 0)
	var waited []time.Duration
	for begun := now; !r.over(); {
		r.failed(now)
		if r.due(now) {
			waited = append(waited, now.Sub(begun))
			r.tried(now)
			begun = now
		}
		if vain := r.n >= promptly; r.vain() != vain {
			t.Errorf("after %d tries in vain: %v", r.n, r.vain())
		}
		now = now.Add(time.Second / 2)
	}
	half := time.Second / 2
	want := []time.Duration{0, half, half}
	for pause := time.Second; len(want) < resumeMax; pause *= 2 {
		want = append(want, pause)
	}
	if !slices.Equal(waited, want) {
		t.Errorf("it was let go on after %v, want %v", waited, want)
	}
	if now = now.Add(forgiven - time.Second); r.due(now) {
		t.Error("it is let go on for ever")
	}
	now = now.Add(forgiven)
	if r.failed(now); !r.due(now) {
		t.Error("a new error is not a new one")
	}
}
