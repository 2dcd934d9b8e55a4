package node

import (
	"testing"

	"duet/console/api"
)

// TestEndedPastDuet: a VM that somebody ended past Duet does not run, on either node's word, until it is started; one
// that was stopped by Duet, or shut itself down, is not to run.
func TestEndedPastDuet(t *testing.T) {
	p := newPair(t)
	p.protected("web01")
	start := func() {
		t.Helper()
		_, err := p.a.node.Act(t.Context(), "web01", api.Start, api.ActionRequest{})
		must(t, err)
		p.is(p.a, "web01", "PRIM")
		p.is(p.b, "web01", "SECOND")
	}
	must(t, p.a.hv.(hypervisor).AdminDestroy("web01"))
	p.says("1 of 1 module has ended otherwise than by Duet (web01); safe to lose: no node", "")
	_, err := p.a.node.Act(t.Context(), "web01", api.Stop, api.ActionRequest{})
	must(t, err)
	p.says("nothing is to run, 1 stopped", "alpha beta")
	start()
	must(t, p.a.hv.(hypervisor).GuestShutdown("web01"))
	p.says("nothing is to run, 1 stopped", "alpha beta")
	start()
	_, err = p.a.node.Act(t.Context(), "web01", api.Stop, api.ActionRequest{})
	must(t, err)
	p.says("nothing is to run, 1 stopped", "alpha beta")
}
