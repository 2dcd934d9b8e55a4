package node

import (
	"fmt"
	"strings"
	"testing"
)

// TestSilentWitness: where nobody would let a node go on without the other, status says so before one is lost, of both
// nodes on each.
func TestSilentWitness(t *testing.T) {
	p := newPair(t)
	p.protected("web01")
	w := newThirdParty(t, p, "witness")
	_, err := p.a.node.AddWitness(t.Context(), w.request())
	must(t, err)
	says := func(fact, safe string) {
		t.Helper()
		for _, n := range []*member{p.a, p.b} {
			until(t, fmt.Sprintf("%s is told that %q may be lost", n.name, safe), func() error {
				s, err := n.node.Status(t.Context())
				if err == nil && (strings.Join(s.Verdict.Safe, " ") != safe || !strings.Contains(s.Verdict.Text, fact)) {
					err = fmt.Errorf("%+v", s.Verdict)
				}
				return err
			})
		}
	}
	says("safe to lose: alpha or beta", "alpha beta")
	w.close()
	says("the witness "+w.addr+" is silent on alpha and beta; safe to lose: no node", "")
	w.open()
	says("safe to lose: alpha or beta", "alpha beta")
}
