package node

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"duet/cluster/clustertest"
	"duet/console/api"
)

// TestSilentWitness: where nobody would let a node go on without the other, status says so before one is lost, of both
// nodes on each.
func TestSilentWitness(t *testing.T) {
	p := newPair(t)
	p.protected("web01")
	w := newThirdParty(t, p, "witness")
	_, err := p.a.node.AddWitness(t.Context(), w.request())
	must(t, err)
	p.says("safe to lose: alpha or beta", "alpha beta")
	w.close()
	p.says("the witness "+w.addr+" is silent on alpha and beta; safe to lose: no node", "")
	w.open()
	p.says("safe to lose: alpha or beta", "alpha beta")
}

// says waits until the status of both nodes tells a fact, and which nodes may be lost.
func (p *pair) says(fact, safe string) {
	p.t.Helper()
	for _, n := range []*member{p.a, p.b} {
		until(p.t, fmt.Sprintf("%s is told that %q may be lost", n.name, safe), func() error {
			s, err := n.node.Status(p.t.Context())
			if err == nil && (strings.Join(s.Verdict.Safe, " ") != safe || !strings.Contains(s.Verdict.Text, fact)) {
				err = fmt.Errorf("%+v", s.Verdict)
			}
			return err
		})
	}
}

// TestBrokenFenceDevice: a fence device that could not switch the other node off is told before it is needed.
func TestBrokenFenceDevice(t *testing.T) {
	p := newPair(t)
	p.protected("web01")
	agentAt := filepath.Join(filepath.Dir(p.a.dir), "fence_test")
	must(t, clustertest.WriteProgram(agentAt, strings.ReplaceAll(agent, "status)", `status) [ -e "$0.broken" ] && exit 1;`)))
	set := func(node string) {
		t.Helper()
		must(t, p.a.node.SetFence(t.Context(), node, [][]api.FenceDevice{{{Name: "bmc", Agent: "fence_test",
			Options: map[string]string{"ip": "10.0.0.9", "password": "geheim"}}}}))
	}
	set("alpha")
	set("beta")
	p.says("safe to lose: alpha or beta", "alpha beta")
	must(t, os.WriteFile(agentAt+".broken", nil, 0o600))
	set("beta") // both are tried anew
	p.says("the fence device bmc of beta failed its last test on alpha, the fence device bmc of alpha failed its last "+
		"test on beta; safe to lose: no node", "")
	d, err := p.b.node.Doctor(t.Context())
	must(t, err)
	if !found(d, "alpha", "warning", "fence", "fence device bmc could not switch beta off") {
		t.Errorf("the doctor says %v", errorsOf(d))
	}
	must(t, os.Remove(agentAt+".broken"))
	set("beta")
	p.says("safe to lose: alpha or beta", "alpha beta")
}
