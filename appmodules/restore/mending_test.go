package restore

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// TestMends: a module that the peer lacks is given to it again after a while, and what went wrong shows until it did
// not.
func TestMends(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var all mends
		m := all.of("web01")
		if !m.due() || m.due() {
			t.Error("it is tried once, at once")
		}
		m.end(errors.New("the name is taken"))
		time.Sleep(again)
		if m.problem() != "the name is taken" || !m.due() {
			t.Errorf("after a while the trouble is %q", m.problem())
		}
		m.end(nil)
		if m.problem() != "" {
			t.Errorf("what is mended has the trouble %q", m.problem())
		}
		m.end(errors.New("again"))
		all.forget("web01")
		if fresh := all.of("web01"); fresh.problem() != "" || !fresh.due() {
			t.Error("a new module of the name has the old one's trouble")
		}
	})
}
