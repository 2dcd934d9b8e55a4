package protect_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"duet/appmodules"
	"duet/appmodules/protect"
	"duet/blockrepl"
	"duet/blockrepl/memlog"
	"duet/console/api"
	"duet/vmmanager"
)

// errRefused is what a call gets that something around a living daemon refuses.
var errRefused = errors.New("it refuses")

// others are parts of a daemon in place of those of its world.
type others func(d *daemon, c *protect.Config)

// altered is run for a daemon that never dies, has other parts, and takes up what is left when do says so. said is what
// its tasks came to.
func (w *world) altered(with others, do func(d *daemon, said *string)) {
	w.t.Helper()
	kept := w.store
	w.store = map[string][]byte{} // run takes it up with the parts of the world
	w.run(0, false, func(d *daemon) {
		w.store = kept
		var said string
		vols := &loggedVolumes{volumes: volumes{d}}
		defer vols.close()
		c := protect.Config{Cluster: d.cluster, Hypervisor: hypervisor{w.hv, d}, Modules: modules{d}, Volumes: vols,
			Peers: peers{d}, Store: store{d}, Tasks: clerk{board{d}, &said}, Spawn: d.spawn,
			Logger: slog.New(slog.NewTextHandler(diary{d}, nil))}
		if with != nil {
			with(d, &c)
		}
		var err error
		d.works, err = protect.NewWorks(c)
		w.must(err)
		for name := range w.here {
			w.begun[name] = !d.works.Held(name)
		}
		do(d, &said)
		d.die()
		d.all.Wait()
	})
}

// diary is the log of a daemon that is read while it is written.
type diary struct{ *daemon }

func (l diary) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.log.Write(b)
}

func (l diary) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.log.String()
}

// loggedVolumes are volumes whose logs are closed in the end: in a synctest bubble no goroutine may be left.
type loggedVolumes struct {
	volumes
	mu   sync.Mutex
	logs []*memlog.Log
}

func (v *loggedVolumes) Log(appmodules.Volume) blockrepl.DirtyLog {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.logs = append(v.logs, memlog.New())
	return v.logs[len(v.logs)-1]
}

func (v *loggedVolumes) close() {
	for _, l := range v.logs {
		l.Close()
	}
}

// clerk is a board that keeps what the last task came to.
type clerk struct {
	board
	said *string
}

func (c clerk) Run(kind, module string, work func(context.Context, string, protect.Task) (string, error)) (api.Task,
	error) {
	return c.board.Run(kind, module, func(ctx context.Context, id string, t protect.Task) (string, error) {
		said, err := work(ctx, id, t)
		*c.said = said
		return said, err
	})
}

func (c clerk) Again(string, string, string) func(string, error) {
	return func(said string, _ error) { *c.said = said }
}

// begin begins a protect or a release of web01.
func (d *daemon) begin(kind string) (api.Task, error) {
	if kind == "release" {
		return d.works.Release(d.ctx, d.here["web01"].Module, api.ReleaseRequest{})
	}
	return d.works.Protect(d.ctx, "web01", api.ProtectRequest{})
}

// protectedWorld is newWorld with its VM protected.
func protectedWorld(t *testing.T, state vmmanager.State) *world {
	t.Helper()
	w := newWorld(t, state)
	w.altered(nil, func(d *daemon, _ *string) { d.finish(d.begin("protect")) })
	return w
}

// next is the next run of the daemon, which ends what is left.
func (w *world) next() {
	w.t.Helper()
	w.altered(nil, func(d *daemon, _ *string) {
		if d.works.Resume(); !d.calm() {
			w.t.Errorf("what is left does not end: %s\n%s", d.store, diary{d})
		}
	})
}

// calm waits until nothing is left to take up, or nothing more happens. It is for a synctest bubble: pauses take no
// time there.
func (d *daemon) calm() (over bool) {
	d.t.Helper()
	for range 120 {
		left, err := d.works.Unfinished()
		d.must(err)
		if len(left) == 0 {
			return true
		}
		time.Sleep(time.Second)
	}
	return false
}

// kinds are the works that a VM can be in, and how it stands.
var kinds = []struct {
	name  string
	state vmmanager.State
	kind  string
}{
	{"protect of a running VM", vmmanager.Running, "protect"},
	{"protect of a VM that is off", vmmanager.Off, "protect"},
	{"release of a running VM", vmmanager.Running, "release"},
	{"release of a VM that is off", vmmanager.Off, "release"},
}

// readied is a world in which a work of that kind can begin.
func readied(t *testing.T, state vmmanager.State, kind string) *world {
	if kind == "release" {
		return protectedWorld(t, state)
	}
	return newWorld(t, state)
}

// TestRefusedAnywhere: a call that is refused once while the daemon lives, and another one on the way back or on,
// leaves a work that comes to one of its two ends, and its task says which.
func TestRefusedAnywhere(t *testing.T) {
	for _, c := range kinds {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ends := endings{}
				for first := 1; refusedAt(t, c.state, c.kind, first, 0, ends); first++ {
					for then := 1; then < 4; then++ {
						refusedAt(t, c.state, c.kind, first, then, ends)
					}
				}
				if len(ends) != 2 {
					t.Errorf("ends %v: both should be met", ends)
				}
			})
		})
	}
}

// refusedAt runs one work in which the first-th change is refused, and the then-th one after that (0: none). It returns
// false if the work got through before.
func refusedAt(t *testing.T, state vmmanager.State, kind string, first, then int, ends endings) (met bool) {
	t.Helper()
	where := fmt.Sprintf("refused at %d, then %d later", first, then)
	w := readied(t, state, kind)
	w.altered(nil, func(d *daemon, _ *string) {
		end := d.die
		defer func() { d.die = end }()
		d.dieAt = first
		d.die = func() { // the knife only scratches
			d.knife.Lock()
			defer d.knife.Unlock()
			if d.dead = false; then > 0 && !met {
				d.dieAt += then
			}
			met = true
		}
		d.follow(d.begin(kind))
		if !d.calm() { // then it is through, and the next run forgets the plan
			return
		}
		done := w.protected() == (kind == "protect")
		if told := d.failed == nil; told && !done || done && !told && !strings.Contains(d.failed.Error(), "goes on") {
			t.Errorf("%s: its task says %v; done %v", where, d.failed, done)
		}
		ends[fmt.Sprint("protected: ", w.protected())]++
	})
	if len(w.store) > 0 {
		if plan := string(w.store["unfinished/web01"]); !strings.Contains(plan, `"at":"begin","ended":true`) &&
			!strings.Contains(plan, `"at":"refit","ended":true`) {
			t.Errorf("%s: left is %s", where, plan)
		}
		w.next()
	}
	if faults := w.faults(state); len(faults) > 0 {
		t.Errorf("%s: %s", where, strings.Join(faults, "; "))
	}
	return met
}

// fullStore is a store on a disk that is full from the n-th save on, for a while.
type fullStore struct {
	store
	saves, full int
	until       time.Time
}

func (s *fullStore) Save(key string, v any) error {
	if s.saves++; s.saves >= s.full && time.Now().Before(s.until) {
		return syscall.ENOSPC
	}
	return s.store.Save(key, v)
}

func (s *fullStore) Delete(key string) error {
	if s.saves >= s.full && time.Now().Before(s.until) {
		return syscall.ENOSPC
	}
	return s.store.Delete(key)
}

// TestFullDisk: where no plan can be stored any more, from whichever save on, nothing is lost: the task says so, and
// the work comes to an end once there is room again.
func TestFullDisk(t *testing.T) {
	for _, c := range kinds {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				failed := 0
				for full := 1; full < 12; full++ {
					w := readied(t, c.state, c.kind)
					w.altered(func(d *daemon, cfg *protect.Config) {
						cfg.Store = &fullStore{store: store{d}, full: full, until: time.Now().Add(time.Minute)}
					}, func(d *daemon, _ *string) {
						d.follow(d.begin(c.kind))
						if d.failed != nil {
							failed++
							if !errors.Is(d.failed, syscall.ENOSPC) {
								t.Errorf("full at save %d: %v", full, d.failed)
							}
						}
						d.calm()
					})
					w.next()
					if faults := w.faults(c.state); len(faults) > 0 {
						t.Errorf("full at save %d: %s", full, strings.Join(faults, "; "))
					}
				}
				if failed < 3 {
					t.Errorf("only %d tasks failed", failed)
				}
			})
		})
	}
}
