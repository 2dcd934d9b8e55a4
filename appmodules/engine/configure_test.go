package engine

import (
	"strings"
	"testing"
	"time"

	"duet/appmodules"
)

// TestConfigure: the policy is exchanged under a guest that writes, and counts at once: without a reconnect while
// all is well, and where writes wait already.
func TestConfigure(t *testing.T) {
	p := newPair(t)
	a, b := p.nodes["alpha"], p.nodes["beta"]
	m := module()
	m.Policy.Arbitration, m.Policy.Frozen = "safe", 0
	for _, n := range []*simNode{a, b} {
		n.boot(func(of *appmodules.Module) { of.Policy = m.Policy })
		must(t, n.running().Command(t.Context(), appmodules.CmdStart, false))
	}
	p.settle([]*simNode{a, b})
	p.until("all is said", func() bool {
		return strings.Contains(journal(a), "every write goes to both nodes\n") &&
			strings.Contains(journal(a), "the VM runs\n")
	})
	p.writes(50)
	before := journal(a) + journal(b)
	m.Policy.StallBudget = appmodules.Duration(300 * time.Millisecond)
	for range 5 {
		for _, n := range []*simNode{a, b} {
			must(t, n.running().Configure(t.Context(), m))
		}
		p.writes(20)
	}
	if after := journal(a) + journal(b); after != before {
		t.Errorf("an edit of the policy led to\n%s", strings.TrimPrefix(after, before))
	}
	p.cut.Store(true)
	p.sever()
	p.until("alpha's VM stands still", func() bool {
		s := a.running().State().Status
		return s.Role == appmodules.Prim && strings.HasSuffix(s.Why, "the VM stands still until then")
	})
	began := time.Now()
	m.Policy.Frozen = appmodules.Standstill(200 * time.Millisecond)
	must(t, a.running().Configure(t.Context(), m))
	p.is(a, "WAIT", "NotReady")
	if !strings.Contains(journal(a), "nobody granted the right to go on: the VM is ended") {
		t.Errorf("after %v alpha says\n%s", time.Since(began), journal(a))
	}
	p.cut.Store(false)
	p.settle([]*simNode{a, b})
	p.writes(20)
}

// TestConfigureOfStandby: an edit of the disk budget counts on the node that follows, too, and in the session that it
// has.
func TestConfigureOfStandby(t *testing.T) {
	t.Parallel() // it waits most of the time
	p := newPair(t)
	m := module()
	m.Policy.StallBudget, m.Policy.DiskBudget = appmodules.Duration(time.Minute), appmodules.Duration(16*time.Second)
	a, b := p.formedAs(func(*simNode, *Config) {}, func(of *appmodules.Module) { of.Policy = m.Policy })
	m.Policy.DiskBudget = appmodules.Duration(time.Second)
	must(t, b.running().Configure(t.Context(), m))
	began, release := time.Now(), b.hang()
	p.is(a, "ALONE", "Ready")
	if took := time.Since(began); took > 12*time.Second { // 16 s by the budget before, a minute by alpha's own
		t.Errorf("beta gave its disk %v", took)
	}
	p.says(b, "disk-hangs")
	release()
	p.inStep(a, b)
}
