package watchdog

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a node with a watchdog in memory, in the time of a synctest bubble.
type world struct {
	t *testing.T

	mu       sync.Mutex
	holds    bool
	sick     error
	busy     chan struct{} // not nil: checks wait for it
	openErr  error
	stuck    error // of Disarm
	timeout  time.Duration
	armed    bool
	deadline time.Time // when the node is reset
	reset    bool
	opened   int
	feeds    int
	log      bytes.Buffer
	stopped  chan error
}

func (w *world) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.log.Write(p)
}

// logged counts the lines with text.
func (w *world) logged(text string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.Count(w.log.String(), text)
}

func (w *world) open() (Dog, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.openErr != nil && w.stuck == nil {
		return nil, w.openErr
	}
	w.armed, w.deadline = true, time.Now().Add(w.timeout)
	w.opened++
	return w, w.openErr
}

func (w *world) Timeout() time.Duration { return w.timeout }

// expire notes a reset whose time has come.
func (w *world) expire() {
	w.reset = w.reset || w.armed && !time.Now().Before(w.deadline)
}

func (w *world) Keepalive() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.expire()
	if !w.armed {
		w.t.Error("fed although disarmed")
	}
	w.deadline = time.Now().Add(w.timeout)
	w.feeds++
	return nil
}

func (w *world) Disarm() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.expire()
	if w.stuck != nil {
		return w.stuck
	}
	w.armed = false
	return nil
}

func (w *world) healthy(ctx context.Context) error {
	w.mu.Lock()
	busy, sick := w.busy, w.sick
	w.mu.Unlock()
	if busy != nil {
		select {
		case <-busy:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return sick
}

// after lets time pass, then changes the node.
func (w *world) after(d time.Duration, change func()) {
	w.t.Helper()
	time.Sleep(d) // the bubble's clock
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.expire()
	if change != nil {
		change()
	}
}

// is checks the state of the device.
func (w *world) is(armed, reset bool) {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.expire()
	if w.armed != armed || w.reset != reset {
		w.t.Errorf("armed %t, reset %t; want %t, %t\n%s", w.armed, w.reset, armed, reset, w.log.String())
	}
}

const (
	interval = time.Second
	timeout  = 10 * time.Second
)

// guarded runs test beside a guard that is stopped at its end.
func guarded(t *testing.T, prepare func(*world), test func(*world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, timeout: timeout, stopped: make(chan error, 1)}
		prepare(w)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() {
			w.stopped <- Run(ctx, GuardConfig{Open: w.open, Healthy: w.healthy, Interval: interval,
				Holds:  func() bool { w.mu.Lock(); defer w.mu.Unlock(); return w.holds },
				Logger: slog.New(slog.NewTextHandler(w, nil))})
		}()
		synctest.Wait()
		test(w)
		armed := func() bool { w.mu.Lock(); defer w.mu.Unlock(); return w.armed }
		cancel()
		err := <-w.stopped
		if stays := w.stuck != nil && w.opened > 0; armed() != stays || (err != nil) != stays {
			t.Errorf("after the stop: armed %t, error %v", armed(), err)
		}
	})
}

func TestArmedOnlyWhileHolding(t *testing.T) {
	guarded(t, func(*world) {}, func(w *world) {
		w.is(false, false)
		w.after(time.Hour, func() { w.holds = true })
		w.is(false, false)
		w.after(interval+1, nil)
		w.is(true, false)
		w.after(time.Hour, func() { w.holds = false })
		w.is(true, false)
		w.after(interval+1, nil)
		w.is(false, false)
		w.after(time.Hour, func() { w.holds = true })
		w.after(interval+1, nil)
		w.is(true, false)
		if n := w.logged("level=ERROR"); n != 0 {
			t.Errorf("%d errors are logged: %s", n, w.log.String())
		}
	})
}

// TestTakesOver: the timer that a killed daemon left running is stopped although the node holds nothing yet.
func TestTakesOver(t *testing.T) {
	guarded(t, func(w *world) { w.armed, w.deadline = true, time.Now().Add(w.timeout) }, func(w *world) {
		w.after(time.Hour, nil)
		w.is(false, false)
	})
}

func TestFedWhileHealthy(t *testing.T) {
	guarded(t, func(w *world) { w.holds = true }, func(w *world) {
		w.after(100*interval+1, nil)
		w.is(true, false)
		if w.feeds != 101 {
			t.Errorf("fed %d times in 100 intervals", w.feeds)
		}
	})
}

// TestHang: a check that hangs resets the node after the timeout, not before, with errors logged ahead.
func TestHang(t *testing.T) {
	guarded(t, func(w *world) { w.holds = true }, func(w *world) {
		w.after(5*interval+interval/2, func() { w.busy = make(chan struct{}) }) // fed 0.5 s ago
		w.after(timeout-interval/2-1, nil)
		w.is(true, false)
		if n := w.logged("does not end"); n < MinChecks {
			t.Errorf("%d errors before the reset: %s", n, w.log.String())
		}
		w.after(1, nil)
		w.is(true, true)
	})
}

// TestSick: a node that says that it does not work is not fed either, and says why.
func TestSick(t *testing.T) {
	guarded(t, func(w *world) { w.holds = true }, func(w *world) {
		w.after(interval/2, func() { w.sick = errors.New("engine web01 does not answer") })
		w.after(timeout-interval/2-1, nil)
		w.is(true, false)
		if n := w.logged("engine web01 does not answer"); n < MinChecks {
			t.Errorf("%d errors before the reset: %s", n, w.log.String())
		}
		w.after(1, nil)
		w.is(true, true)
	})
}

// TestSlow: checks that take nearly all the time there is never reset the node.
func TestSlow(t *testing.T) {
	guarded(t, func(w *world) { w.holds = true }, func(w *world) {
		for range 20 {
			w.after(0, func() { w.busy = make(chan struct{}) })
			w.after(timeout-interval-1, func() { close(w.busy); w.busy = nil })
			w.after(interval/2, nil)
			w.is(true, false)
		}
		if w.logged("watchdog fed again") == 0 {
			t.Error("the recovery is not logged")
		}
	})
}

// TestStopWhileHanging: the stop in good order disarms also when the check hangs.
func TestStopWhileHanging(t *testing.T) {
	guarded(t, func(w *world) { w.holds = true; w.busy = make(chan struct{}) }, func(w *world) {
		w.after(3*interval, nil)
		w.is(true, false)
	})
}

// TestOpenFails: the failure is logged once, and the device is used as soon as it is there.
func TestOpenFails(t *testing.T) {
	guarded(t, func(w *world) { w.holds, w.openErr = true, errors.New("no such file") }, func(w *world) {
		w.after(time.Hour, nil)
		if n := w.logged("no such file"); n != 1 {
			t.Errorf("logged %d times", n)
		}
		w.after(0, func() { w.openErr = errors.New("busy") })
		w.after(time.Hour, func() { w.openErr = nil })
		if n := w.logged("busy"); n != 1 {
			t.Errorf("another reason is logged %d times", n)
		}
		w.after(interval+1, nil)
		w.is(true, false)
	})
}

// TestShortTimeout: a device that is too quick for the interval is not used.
func TestShortTimeout(t *testing.T) {
	guarded(t, func(w *world) { w.holds, w.timeout = true, MinChecks*interval-1 }, func(w *world) {
		w.after(time.Hour, nil)
		w.is(false, false)
		if n := w.logged("shorter than"); n != 1 {
			t.Errorf("logged %d times", n)
		}
	})
}

// TestUnfitAndStuck: a device that is not used and cannot be disarmed resets nobody: it is fed until it can be.
func TestUnfitAndStuck(t *testing.T) {
	short := func(w *world) { w.timeout = MinChecks*interval - 1 }
	refused := func(w *world) { w.openErr = errors.New("it does not say its timeout") }
	for _, unfit := range []func(*world){short, refused} {
		stuck := func(w *world) {
			w.holds, w.stuck, w.sick = true, errors.New("input/output error"), errors.New("sick")
			unfit(w)
		}
		guarded(t, stuck, func(w *world) {
			w.after(time.Hour, nil)
			w.is(true, false)
			w.after(0, func() { w.stuck = nil })
			w.after(interval+1, nil)
			w.is(false, false)
			if n := w.logged("watchdog not fed"); n != 0 || w.opened != 1 {
				t.Errorf("not fed %d times, opened %d times", n, w.opened)
			}
			w.after(0, func() { w.timeout, w.openErr = time.Minute, nil })
			w.after(2*interval, nil)
			w.is(true, false)
		})
	}
}

// TestStuck: a device that cannot be disarmed is fed on without guests, also while the node is sick, and the stop says
// so.
func TestStuck(t *testing.T) {
	guarded(t, func(w *world) { w.holds = true }, func(w *world) {
		w.after(time.Minute, func() {
			w.holds, w.stuck, w.sick = false, errors.New("input/output error"),
				errors.New("sick")
		})
		w.after(time.Hour, nil)
		w.is(true, false)
	})
}

func TestFaultyConfig(t *testing.T) {
	w := &world{t: t}
	good := GuardConfig{Open: w.open, Healthy: w.healthy, Holds: func() bool { return false }, Interval: interval,
		Logger: slog.New(slog.DiscardHandler)}
	for name, change := range map[string]func(*GuardConfig){
		"no interval":   func(c *GuardConfig) { c.Interval = 0 },
		"long interval": func(c *GuardConfig) { c.Interval = time.Hour },
		"no check":      func(c *GuardConfig) { c.Healthy = nil },
	} {
		c := good
		change(&c)
		if err := Run(t.Context(), c); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
