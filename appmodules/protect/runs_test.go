package protect_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"duet/appmodules/protect"
	"duet/vmmanager"
)

// slowModules run what they were told to run after a while.
type slowModules struct {
	modules
	at time.Time // zero: never
}

func (m *slowModules) Runs(string) bool { return !m.at.IsZero() && !time.Now().Before(m.at) }

// TestProtectEndsWhenItRuns: a protect ends when its module says that it runs, and says so only then; one that does not
// is not waited for without end.
func TestProtectEndsWhenItRuns(t *testing.T) {
	for _, c := range []struct {
		after, took time.Duration
		want        string
	}{
		{2 * time.Second, 2 * time.Second, "VM web01 is protected as module web01 and runs. "},
		{0, 30 * time.Second, "VM web01 is protected as module web01, was told to run, and does not say yet that it does: " +
			"`duet status web01` says what keeps it. The old images are no longer used: "},
	} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, vmmanager.Running)
			began := time.Now()
			slow := func(d *daemon, with *protect.Config) {
				m := &slowModules{modules: modules{d}}
				if c.after > 0 {
					m.at = began.Add(c.after)
				}
				with.Modules = m
			}
			w.altered(slow, func(d *daemon, said *string) {
				d.finish(d.begin("protect"))
				if took := time.Since(began); !strings.HasPrefix(*said, c.want) || took.Round(time.Second) != c.took {
					t.Errorf("after %v: %s\nwant %s", took, *said, c.want)
				}
			})
		})
	}
}
