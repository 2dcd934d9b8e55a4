package protect_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"

	"duet/appmodules/protect"
	"duet/vmmanager"
)

// halfGone are modules whose Remove forgets and fails then, once, as registry.Remove does when a socket, the journal or
// the log of a volume cannot be removed.
type halfGone struct {
	modules
	failed bool
}

func (m *halfGone) Remove(ctx context.Context, name string) error {
	if err := m.modules.Remove(ctx, name); err != nil || m.failed {
		return err
	}
	m.failed = true
	return errRefused
}

// TestReleaseWhoseRemoveFailsLate: the module is forgotten, but Remove returns an error: the VM must not be left on
// volumes that nobody serves and be called an ordinary VM.
func TestReleaseWhoseRemoveFailsLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := protectedWorld(t, vmmanager.Running)
		w.altered(func(d *daemon, c *protect.Config) { c.Modules = &halfGone{modules: modules{d}} },
			func(d *daemon, said *string) {
				d.follow(d.begin("release"))
				t.Logf("said %q, %v", *said, d.failed)
				d.calm()
			})
		if faults := w.faults(vmmanager.Running); len(faults) > 0 {
			t.Errorf("protected %v: %v", w.protected(), faults)
		}
	})
}

// TestEndThatCannotBeStored: a work that is through, but whose plan cannot be ended for a moment, is ended in this run.
func TestEndThatCannotBeStored(t *testing.T) {
	for _, kind := range []string{"protect", "release"} {
		t.Run(kind, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := readied(t, vmmanager.Off, kind)
				w.altered(func(d *daemon, c *protect.Config) { c.Store = &endless{store: store{d}} },
					func(d *daemon, said *string) {
						d.follow(d.begin(kind))
						t.Logf("said %q, %v", *said, d.failed)
						if !d.calm() {
							t.Errorf("it is not ended: %s", strings.Join(must(d.works.Unfinished()), ", "))
						}
					})
				if faults := w.faults(vmmanager.Off); len(faults) > 0 {
					t.Errorf("%s: %v", kind, faults)
				}
			})
		})
	}
}

func must(s []string, err error) []string {
	if err != nil {
		panic(err)
	}
	return s
}

// endless is a store that cannot forget, once, or keep a plan for later.
type endless struct {
	store
	once bool
}

func (s *endless) Delete(key string) error {
	if !s.once {
		s.once = true
		return errRefused
	}
	return s.store.Delete(key)
}

func (s *endless) Save(key string, v any) error {
	if !s.once && strings.Contains(key, "@") {
		s.once = true
		return errRefused
	}
	return s.store.Save(key, v)
}

// TestReleaseOfVMThatIsGone: a release beyond return whose VM somebody has undefined comes to an end, and does not call
// it a VM.
func TestReleaseOfVMThatIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := protectedWorld(t, vmmanager.Off)
		w.altered(nil, func(d *daemon, _ *string) {
			d.dieAt, d.half = 5, true
			d.follow(d.begin("release"))
		})
		t.Logf("%v %s", w.here, w.store)
		if err := w.hv.Undefine(t.Context(), "web01"); err != nil {
			t.Fatal(err)
		}
		w.altered(nil, func(d *daemon, said *string) {
			d.works.Resume()
			if !d.calm() {
				t.Errorf("it does not end: %s", &d.log)
			}
			synctest.Wait() // the work has said it
			if !strings.HasPrefix(*said, "VM web01 is protected no more; it was deleted from alpha meanwhile, its data are in") {
				t.Errorf("it says %q", *said)
			}
		})
	})
}
