package workload

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"duet/appmodules"
)

// Stage is one part of an application: its files, an address, something that runs. All methods may be called again when
// what they do is done, which is no error; an error says that it is not known how far it got.
type Stage interface {
	// Label is how people know it: address 192.168.7.50.
	Label() string
	// Up: something of it is there, which may write or answer; whole: and all of it.
	Up(ctx context.Context) (up, whole bool, err error)
	Start(ctx context.Context) error
	Stop(ctx context.Context) error
	// Kill returns nil only when nothing of it can write or answer any more.
	Kill(ctx context.Context) error
}

// Application is the Workload of an application: stages that come up in order and go down in reverse. Any goroutine may
// call its methods.
type Application struct {
	stages []Stage
	log    *slog.Logger

	mu sync.Mutex
	on appmodules.On
	// wanted: it was started, or found whole, and neither stopped nor killed since. What is not whole then has failed.
	wanted bool
	failed string // what was reported last, so that it is reported once
	unsaid bool   // State could not say how it stands: whoever asked takes it for down, until a report says otherwise
	orders int    // given so far, begun or ended: what was seen before the last one says nothing of it
	under  int    // orders under way: what is missing meanwhile has not failed
}

var (
	_ appmodules.Workload = (*Application)(nil)
	_ appmodules.Governed = (*Application)(nil)
)

// NewApplication returns the application of a module that consists of stages, first to last.
func NewApplication(m appmodules.Module, log *slog.Logger, stages ...Stage) *Application {
	return &Application{stages: stages, log: log.With("module", m.Name), on: m.Policy.On}
}

// SetPolicy changes what follows a failure.
func (a *Application) SetPolicy(p appmodules.Policy) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.on = p.On
}

// look asks all stages. Those that are not whole are missing, by their labels.
func (a *Application) look(ctx context.Context) (up bool, missing []string, err error) {
	for _, s := range a.stages {
		is, whole, lookErr := s.Up(ctx)
		if lookErr != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w", s.Label(), lookErr))
		}
		up = up || is
		if !whole {
			missing = append(missing, s.Label())
		}
	}
	return up, missing, err
}

// seen is how many orders were given before somebody looks.
func (a *Application) seen() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.orders
}

// conditionLocked is how it stands, from what look has found. mu is held.
func (a *Application) conditionLocked(up bool, missing []string) appmodules.Condition {
	switch {
	case len(missing) == 0:
		return appmodules.Condition{Up: true, Text: "running"}
	case up:
		return appmodules.Condition{Up: true, Text: "partly up", Lost: a.lossLocked(missing)}
	}
	return appmodules.Condition{Lost: a.lossLocked(missing)}
}

// lossLocked is what follows when something is missing that should be there. mu is held.
func (a *Application) lossLocked(missing []string) appmodules.Incident {
	return appmodules.Incident{What: a.on.Crash.Happening(), Why: strings.Join(missing, ", ") + " is not up any more"}
}

// State asks all stages.
func (a *Application) State(ctx context.Context) (appmodules.Condition, error) {
	before := a.seen()
	up, missing, err := a.look(ctx)
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.unsaid = err != nil; a.unsaid {
		return appmodules.Condition{}, err
	}
	if len(missing) == 0 && a.orders == before && a.under == 0 {
		a.wanted = true // of an earlier run of the daemon
	}
	return a.conditionLocked(up, missing), nil
}

// takeBack is how long a start that failed may take to take back what it did.
const takeBack = 30 * time.Second

// Start brings up what is not, in order. A stage of which only a part is up is broken, and ended first with all that
// stand on it: what has a file of a file system open whose device is gone does not get it back. When a stage fails
// those that are up are taken down again, and the error says which it was.
func (a *Application) Start(ctx context.Context, _ bool) (appmodules.Condition, error) {
	defer a.order()()
	for i, s := range a.stages {
		up, whole, err := s.Up(ctx)
		if err == nil && up && !whole {
			a.log.Info("ends what is broken, and what stands on it", "stage", s.Label())
			err = kill(ctx, a.stages[i:])
		}
		if err == nil && !whole {
			a.log.Info("starts", "stage", s.Label())
			err = s.Start(ctx)
		}
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			err = fmt.Errorf("%s: %w", s.Label(), err)
			back, cancel := context.WithTimeout(context.WithoutCancel(ctx), takeBack)
			defer cancel()
			return appmodules.Condition{}, errors.Join(err, a.Kill(back))
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.wanted = true
	return a.conditionLocked(true, nil), nil
}

// Stop takes the stages down in reverse. One that fails ends it, as those before may be in use.
func (a *Application) Stop(ctx context.Context) error {
	defer a.order()()
	for _, s := range slices.Backward(a.stages) {
		if up, _, err := s.Up(ctx); err == nil && !up {
			continue
		}
		a.log.Info("stops", "stage", s.Label())
		if err := s.Stop(ctx); err != nil {
			return fmt.Errorf("%s: %w", s.Label(), err)
		}
	}
	return nil
}

// killTurn is how long one stage may take before the next one has its turn, of which there are more after it. What
// has little time has it in equal shares.
func killTurn(ctx context.Context, more int) time.Duration {
	turn := 3 * time.Second
	if until, is := ctx.Deadline(); is {
		turn = min(turn, time.Until(until)/time.Duration(more+2))
	}
	return turn
}

// Kill ends all stages in reverse.
func (a *Application) Kill(ctx context.Context) error {
	defer a.order()()
	return kill(ctx, a.stages)
}

// kill ends stages in reverse, also when one fails or does not come to an end: a later one may still be able to end
// what it could not, as the processes that wait for a volume end when its file system is shut. So those that failed
// have one more turn.
func kill(ctx context.Context, stages []Stage) error {
	left := slices.Clone(stages)
	slices.Reverse(left)
	var failed error
	for range 2 {
		failed = nil
		more := len(left)
		left = slices.DeleteFunc(left, func(s Stage) bool {
			more--
			turn, cancel := context.WithTimeout(ctx, killTurn(ctx, more))
			defer cancel()
			err := s.Kill(turn)
			if err != nil {
				failed = errors.Join(failed, fmt.Errorf("%s: %w", s.Label(), err))
			}
			return err == nil
		})
		if failed == nil || ctx.Err() != nil {
			break
		}
	}
	return failed
}

// order begins an order and returns what ends it. From its beginning on nothing is wanted, until Start has brought it
// up, and nothing is reported.
func (a *Application) order() (end func()) {
	note := func(under int) {
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.under += under; under > 0 {
			a.wanted, a.failed = false, ""
		}
		a.orders++
	}
	note(1)
	return func() { note(-1) }
}

// lookEvery is between looks at an application that runs.
const lookEvery = 2 * time.Second

// Watch looks now and then whether all is there that was started, and reports what is not, once.
func (a *Application) Watch(ctx context.Context, report func(appmodules.Report)) {
	go func() {
		again := time.NewTicker(lookEvery)
		defer again.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-again.C:
			}
			if r, is := a.incident(ctx); is && ctx.Err() == nil {
				report(r)
			}
		}
	}()
}

// incident is what has happened to an application that should be whole, or how one stands of which State could not say
// it. What cannot be asked has not happened.
func (a *Application) incident(ctx context.Context) (appmodules.Report, bool) {
	a.mu.Lock()
	asked, before := a.wanted || a.unsaid, a.orders
	a.mu.Unlock()
	if !asked {
		return appmodules.Report{}, false
	}
	up, missing, err := a.look(ctx)
	if err != nil {
		return appmodules.Report{}, false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	text := strings.Join(missing, ", ")
	now := a.conditionLocked(up, missing)
	switch {
	case a.orders != before:
		return appmodules.Report{}, false
	case a.unsaid:
		a.unsaid, a.wanted = false, len(missing) == 0
		return appmodules.Report{Now: now}, true
	case text == a.failed:
		return appmodules.Report{}, false
	}
	a.failed = text
	if len(missing) == 0 { // it is whole again
		return appmodules.Report{Now: now}, true
	}
	return appmodules.Report{Incident: now.Lost, Now: now}, true
}
