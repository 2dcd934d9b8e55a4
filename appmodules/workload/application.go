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

// condition is how it stands, from what look has found.
func (a *Application) condition(up bool, missing []string) appmodules.Condition {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case len(missing) == 0:
		a.wanted = true // also of an earlier run of the daemon
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
	up, missing, err := a.look(ctx)
	if err != nil {
		return appmodules.Condition{}, err
	}
	return a.condition(up, missing), nil
}

// takeBack is how long a start that failed may take to take back what it did.
const takeBack = 30 * time.Second

// Start brings up what is not, in order. When a stage fails those that are up are taken down again, and the error says
// which it was.
func (a *Application) Start(ctx context.Context, _ bool) (appmodules.Condition, error) {
	a.unwant() // what comes up one after the other is not missing
	for _, s := range a.stages {
		_, whole, err := s.Up(ctx)
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
	return a.condition(true, nil), nil
}

// Stop takes the stages down in reverse. One that fails ends it, as those before may be in use.
func (a *Application) Stop(ctx context.Context) error {
	a.unwant()
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

// Kill ends all stages in reverse, also when one fails: a later one may still be able to end what it could not.
func (a *Application) Kill(ctx context.Context) error {
	a.unwant()
	var failed error
	for _, s := range slices.Backward(a.stages) {
		if err := s.Kill(ctx); err != nil {
			failed = errors.Join(failed, fmt.Errorf("%s: %w", s.Label(), err))
		}
	}
	return failed
}

func (a *Application) unwant() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.wanted, a.failed = false, ""
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

// incident is what has happened to an application that should be whole. What cannot be asked has not happened.
func (a *Application) incident(ctx context.Context) (appmodules.Report, bool) {
	a.mu.Lock()
	wanted := a.wanted
	a.mu.Unlock()
	if !wanted {
		return appmodules.Report{}, false
	}
	up, missing, err := a.look(ctx)
	if err != nil {
		return appmodules.Report{}, false
	}
	now := a.condition(up, missing)
	a.mu.Lock()
	defer a.mu.Unlock()
	if text := strings.Join(missing, ", "); !a.wanted || text == a.failed {
		return appmodules.Report{}, false
	} else {
		a.failed = text
	}
	if len(missing) == 0 { // it is whole again
		return appmodules.Report{Now: now}, true
	}
	return appmodules.Report{Incident: now.Lost, Now: now}, true
}
