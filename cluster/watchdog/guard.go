package watchdog

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// MinChecks is how many intervals a device's timeout must have at least: so many checks may fail, or one take as
// long, before a node is reset.
const MinChecks = 5

// What suits most: systemd restarts a daemon that hangs as a whole long before.
const (
	DefaultInterval = 5 * time.Second
	DefaultTimeout  = 60 * time.Second
)

// Dog is an armed watchdog; see Device.
type Dog interface {
	Timeout() time.Duration
	Keepalive() error
	Disarm() error
}

// GuardConfig is what Run needs. All fields must be set.
type GuardConfig struct {
	// Open opens and so arms the device; see the function Open.
	Open func() (Dog, error)
	// Healthy returns nil if this node works, such as: every engine answered. It may take long, and hang if the node
	// does, but it returns soon after ctx ends. It must not wait for disks or peers: their slowness is no reason to reset.
	Healthy func(ctx context.Context) error
	// Holds tells whether this node holds guests. It must not block.
	Holds func() bool
	// Interval is the time from check to check.
	Interval time.Duration
	// Logger gets what happens, and an error for each interval without feeding.
	Logger *slog.Logger
}

// guard is one run; only the goroutine of Run touches it.
type guard struct {
	GuardConfig
	dog      Dog // nil while disarmed
	unfit    Dog // armed, not to be used, and not disarmed yet; nil: there is none, as while there is a dog
	fed      time.Time
	result   chan error // of the check that runs
	checking bool
	failed   string // why the device cannot be opened, as logged
}

// Run guards this node until ctx ends, then disarms the device and waits for the last check. It returns an
// error if c is faulty, or if the device cannot be disarmed, so that this node will be reset. A device that cannot
// be opened is logged once and tried again each interval: the node works without.
func Run(ctx context.Context, c GuardConfig) error {
	switch {
	case c.Open == nil || c.Healthy == nil || c.Holds == nil || c.Logger == nil:
		return errors.New("guard by watchdog: a field of GuardConfig is missing")
	case c.Interval <= 0 || c.Interval > maxTimeout/MinChecks:
		return fmt.Errorf("guard by watchdog: interval %s: must be above 0 and at most %s", c.Interval, maxTimeout/MinChecks)
	}
	g := &guard{GuardConfig: c, result: make(chan error, 1)}
	g.open() // also without guests: a daemon that was killed may have left the timer running
	g.turn(ctx)
	tick := time.NewTicker(c.Interval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			g.turn(ctx)
		case err := <-g.result:
			g.checked(err)
		case <-ctx.Done():
			return g.stop()
		}
	}
}

// turn is what happens each interval. One check runs at a time: while one hangs nothing is fed, and no second one
// piles up behind it.
func (g *guard) turn(ctx context.Context) {
	if g.unfit != nil {
		g.discard()
		return
	}
	switch holds := g.Holds(); {
	case !holds && g.dog != nil:
		g.release()
		return
	case holds && g.dog == nil:
		g.open()
	}
	if g.dog == nil {
		return
	}
	if !g.checking {
		g.checking = true
		go func() { g.result <- g.Healthy(ctx) }()
		return
	}
	g.Logger.Error("watchdog not fed: the check of this node does not end", "reset_in", g.left(g.dog))
}

// checked feeds the device after a check that was good.
func (g *guard) checked(err error) {
	g.checking = false
	if g.dog == nil {
		return
	}
	if err != nil {
		g.Logger.Error("watchdog not fed: this node does not work", "err", err, "reset_in", g.left(g.dog))
		return
	}
	g.feed(g.dog)
}

func (g *guard) feed(dog Dog) {
	if err := dog.Keepalive(); err != nil {
		g.Logger.Error("watchdog not fed", "err", err, "reset_in", g.left(dog))
		return
	}
	if late := time.Since(g.fed); late > 2*g.Interval {
		g.Logger.Warn("watchdog fed again", "after", late)
	}
	g.fed = time.Now()
}

// left is the time until this node is reset.
func (g *guard) left(dog Dog) time.Duration { return max(0, dog.Timeout()-time.Since(g.fed)) }

// open arms the device, if it can. One that is unfit and cannot be disarmed is fed until it can be.
func (g *guard) open() {
	dog, err := g.Open()
	if err == nil && dog.Timeout() < MinChecks*g.Interval {
		err = fmt.Errorf("its timeout of %s is shorter than %d intervals of %s, so that a slow check could reset this node",
			dog.Timeout(), MinChecks, g.Interval)
		if stuck := dog.Disarm(); stuck != nil {
			err = errors.Join(err, stuck)
		} else {
			dog = nil
		}
	}
	if err != nil {
		if g.failed != err.Error() {
			g.failed = err.Error()
			g.Logger.Error("no watchdog guards this node", "err", err, "armed", dog != nil)
		}
		if dog != nil {
			g.unfit, g.fed = dog, time.Now()
		}
		return
	}
	g.dog, g.fed, g.failed = dog, time.Now(), ""
	g.Logger.Info("watchdog armed", "timeout", dog.Timeout())
}

// discard disarms a device that is not to be used, and feeds it while that fails, whatever the checks say.
func (g *guard) discard() {
	err := g.unfit.Disarm()
	if err == nil {
		g.unfit = nil
		g.Logger.Info("watchdog disarmed: it is not used")
		return
	}
	g.Logger.Error("watchdog armed although it is not used", "err", err)
	g.feed(g.unfit)
}

// release disarms the device because no guest is left to protect. While that fails it is fed whatever the
// checks say.
func (g *guard) release() {
	if err := g.dog.Disarm(); err != nil {
		g.Logger.Error("watchdog armed without need", "err", err)
		g.feed(g.dog)
		return
	}
	g.dog = nil
	g.Logger.Info("watchdog disarmed: this node holds no guest")
}

// stop ends in order, also when a check hangs: once the process ends, nothing writes.
func (g *guard) stop() error {
	var err error
	if dog := cmp.Or(g.dog, g.unfit); dog != nil {
		if err = dog.Disarm(); err != nil {
			err = fmt.Errorf("%w: this node is reset in %s", err, g.left(dog))
		} else {
			g.Logger.Info("watchdog disarmed: the daemon stops")
		}
	}
	if g.checking {
		<-g.result
	}
	return err
}
