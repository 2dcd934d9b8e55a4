package workload

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"duet/appmodules"
)

// book is what stages were told, in order.
type book struct {
	mu  sync.Mutex
	all []string
}

func (b *book) note(text string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.all = append(b.all, text)
}

// act is a stage of a test.
type act struct {
	name string
	book *book
	mu   sync.Mutex
	up   bool
	fail map[string]error // by what it is told
}

func (a *act) Label() string { return a.name }

func (a *act) Up(context.Context) (up, whole bool, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.up, a.up, a.fail["up"]
}

func (a *act) do(what string, up bool) error {
	a.book.note(what + " " + a.name)
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.fail[what]; err != nil {
		return err
	}
	a.up = up
	return nil
}

func (a *act) Start(context.Context) error { return a.do("start", true) }
func (a *act) Stop(context.Context) error  { return a.do("stop", false) }
func (a *act) Kill(context.Context) error  { return a.do("kill", false) }

// is puts a stage where it was not told to be.
func (a *act) is(up bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.up = up
}

// play is an application of three stages.
func play() (*Application, *book, []*act) {
	b := &book{}
	acts := []*act{{name: "files", book: b, fail: map[string]error{}}, {name: "address", book: b,
		fail: map[string]error{}}, {name: "web", book: b, fail: map[string]error{}}}
	m := appmodules.Module{Name: "app", Policy: appmodules.DefaultPolicy()}
	return NewApplication(m, slog.New(slog.DiscardHandler), acts[0], acts[1], acts[2]), b, acts
}

// told fails unless the stages were told that since the last time.
func (b *book) told(t *testing.T, want ...string) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if !slices.Equal(b.all, want) {
		t.Errorf("told %q, want %q", b.all, want)
	}
	b.all = nil
}

// TestStagesInOrder: an application comes up in order and goes down in reverse; what is there is left alone.
func TestStagesInOrder(t *testing.T) {
	a, b, acts := play()
	c, err := a.State(t.Context())
	if err != nil || c.Up || c.Lost.What != appmodules.HasFailed {
		t.Errorf("it is %+v, %v", c, err)
	}
	if c, err = a.Start(t.Context(), false); err != nil || !c.Up || c.Text != "running" {
		t.Errorf("it is %+v, %v", c, err)
	}
	b.told(t, "start files", "start address", "start web")
	acts[1].is(false)
	c, err = a.State(t.Context())
	if err != nil || !c.Up || c.Text != "partly up" || !strings.HasPrefix(c.Lost.Why, "address") {
		t.Errorf("it is %+v, %v", c, err)
	}
	if _, err = a.Start(t.Context(), false); err != nil {
		t.Error(err)
	}
	b.told(t, "start address")
	if err := a.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	b.told(t, "stop web", "stop address", "stop files")
}

// TestStageFails: of one that does not come up the error says which it is, and nothing is left up; one that does not
// go down keeps those that it may use; all are killed whatever one says.
func TestStageFails(t *testing.T) {
	a, b, acts := play()
	broken := errors.New("broken")
	acts[2].fail["start"] = broken
	if _, err := a.Start(t.Context(), false); !errors.Is(err, broken) || !strings.HasPrefix(err.Error(), "web: ") {
		t.Error(err)
	}
	b.told(t, "start files", "start address", "start web", "kill web", "kill address", "kill files")
	acts[2].fail["start"] = nil
	if _, err := a.Start(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	b.told(t, "start files", "start address", "start web")
	acts[1].fail["stop"], acts[1].fail["kill"] = broken, broken
	if err := a.Stop(t.Context()); !errors.Is(err, broken) {
		t.Error(err)
	}
	b.told(t, "stop web", "stop address")
	if err := a.Kill(t.Context()); !errors.Is(err, broken) || !strings.Contains(err.Error(), "address: ") {
		t.Error(err)
	}
	b.told(t, "kill web", "kill address", "kill files")
	acts[0].fail["up"] = broken
	if _, err := a.State(t.Context()); !errors.Is(err, broken) {
		t.Error(err)
	}
}

// TestStartIsCutOff: a start that is called off leaves nothing up.
func TestStartIsCutOff(t *testing.T) {
	a, b, _ := play()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if c, err := a.Start(ctx, false); !errors.Is(err, context.Canceled) || c.Up {
		t.Errorf("%+v, %v", c, err)
	}
	b.told(t, "start files", "kill web", "kill address", "kill files")
}

// TestWhatIsMissingIsReported: what should be there and is not is reported once, and once that it is back; also after a
// restart of the daemon, which finds it whole. Nothing is reported of what was stopped.
func TestWhatIsMissingIsReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _, acts := play()
		for _, s := range acts {
			s.is(true)
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var got []appmodules.Report
		a.Watch(ctx, func(r appmodules.Report) { got = append(got, r) })
		reports := func(want int) (last appmodules.Report) {
			t.Helper()
			time.Sleep(3 * lookEvery)
			synctest.Wait()
			if len(got) != want {
				t.Fatalf("reports: %+v", got)
			}
			if want > 0 {
				last = got[want-1]
			}
			got = nil
			return last
		}
		acts[1].is(false)
		reports(0) // nobody has started it, nor found it whole
		acts[1].is(true)
		if _, err := a.State(ctx); err != nil {
			t.Fatal(err)
		}
		reports(0)
		acts[1].is(false)
		if r := reports(1); r.What != appmodules.HasFailed || !r.Now.Up || !strings.HasPrefix(r.Why, "address") {
			t.Errorf("%+v", r)
		}
		acts[1].is(true)
		if r := reports(1); r.What != appmodules.Changed || r.Now.Text != "running" {
			t.Errorf("%+v", r)
		}
		a.SetPolicy(appmodules.Policy{On: appmodules.On{Crash: appmodules.ReactMove}})
		acts[2].is(false)
		if r := reports(1); r.What != appmodules.HasToMove {
			t.Errorf("%+v", r)
		}
		if err := a.Stop(ctx); err != nil {
			t.Fatal(err)
		}
		reports(0)
	})
}
