package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"duet/blockrepl/badgerlog"
	"duet/cluster"
	"duet/cluster/clustertest"
	"duet/cluster/witness"
	"duet/console/api"
)

// agent is a fence agent that notes its orders beside itself.
const agent = `#!/bin/sh
while read -r line; do case "$line" in action=*) action="${line#action=}";; esac; done
echo "$action" >>"$0.log"
case "$action" in
status) exit 2;;
metadata) echo '<resource-agent name="fence_test"><parameters><parameter name="ip"><content type="string"/></parameter><parameter name="password"><content type="string"/></parameter></parameters><actions><action name="off"/><action name="on"/><action name="status"/></actions></resource-agent>';;
esac
exit 0
`

// TestFenceDevices: both nodes know them, secrets stay inside, and modules that ask
// together switch the node off once.
func TestFenceDevices(t *testing.T) {
	p := newPair(t)
	ctx := t.Context()
	path := filepath.Join(filepath.Dir(p.a.dir), "fence_test")
	must(t, clustertest.WriteProgram(path, agent))
	dev := func(agent string) [][]api.FenceDevice {
		return [][]api.FenceDevice{{{Name: "bmc", Agent: agent,
			Options: map[string]string{"ip": "10.0.0.9", "password": "geheim"}}}}
	}
	if err := p.a.node.SetFence(ctx, "gamma", dev("fence_test")); !errors.Is(err, api.ErrNotFound) {
		t.Errorf("a node that is none: %v", err)
	}
	if err := p.a.node.SetFence(ctx, "beta", dev("reboot")); !errors.Is(err, api.ErrInvalid) {
		t.Errorf("an agent that is none: %v", err)
	}
	for _, at := range []*member{p.a, p.b} { // whichever is asked, alpha is to use it
		if err := at.node.SetFence(ctx, "beta", dev("fence_absent")); err == nil ||
			!strings.Contains(err.Error(), "apt-get") || !strings.Contains(err.Error(), "alpha") {
			t.Errorf("an agent that is not installed, said on %s: %v", at.name, err)
		}
	}
	must(t, p.b.node.SetFence(ctx, "beta", nil))
	must(t, p.a.node.SetFence(ctx, "beta", dev("fence_test")))
	for _, m := range []*member{p.a, p.b} {
		all, err := m.node.Fences(ctx)
		must(t, err)
		if len(all) != 1 || all[0].Node != "beta" || all[0].Levels[0][0].Options["password"] == "geheim" {
			t.Errorf("%s shows %+v", m.name, all)
		}
	}
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			if err := p.a.node.Off(ctx, "beta"); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	log, err := os.ReadFile(path + ".log")
	must(t, err)
	if n := strings.Count(string(log), "off\n"); n > 2 { // a late caller may order it once more
		t.Errorf("ten modules gave %d orders:\n%s", n, log)
	}
	must(t, p.b.node.SetFence(ctx, "beta", nil))
	if p.a.node.Can("beta") {
		t.Error("alpha still has the device that beta removed")
	}
}

// thirdParty is a witness that can be closed and opened again.
type thirdParty struct {
	t     *testing.T
	s     *witness.Server
	addr  string
	close func()
}

func newThirdParty(t *testing.T, p *pair, name string) *thirdParty {
	t.Helper()
	s, err := witness.New(witness.Config{Dir: t.TempDir(),
		Store: badgerlog.Values{Store: p.a.node.store, Prefix: name + "/"}})
	must(t, err)
	w := &thirdParty{t: t, s: s, addr: "127.0.0.1:0"}
	w.open()
	t.Cleanup(func() { w.close() })
	return w
}

func (w *thirdParty) open() {
	w.t.Helper()
	ln, err := net.Listen("tcp", w.addr)
	must(w.t, err)
	w.addr = ln.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- w.s.Serve(ctx, ln) }()
	w.close = sync.OnceFunc(func() {
		cancel()
		_ = ln.Close()
		<-served
	})
}

// request asks a node to use it.
func (w *thirdParty) request() api.WitnessRequest {
	w.t.Helper()
	token, err := w.s.NewToken(0)
	must(w.t, err)
	return api.WitnessRequest{Addr: w.addr, Token: token.String()}
}

// TestWitnessOfACluster: added by a token, known to both nodes, told which epoch is
// held, not changed while a node is away.
func TestWitnessOfACluster(t *testing.T) {
	p := newPair(t)
	ctx := t.Context()
	p.protected("web01")
	w := newThirdParty(t, p, "witness")
	if _, err := p.a.node.AddWitness(ctx, api.WitnessRequest{Addr: w.addr, Token: "duetw1.x"}); !errors.Is(err,
		api.ErrInvalid) {
		t.Errorf("a broken token: %v", err)
	}
	st, err := p.a.node.AddWitness(ctx, w.request())
	must(t, err)
	if !st.Alive || st.Spare {
		t.Errorf("the witness does not vote: %+v", st)
	}
	until(t, "beta knows it too", func() error { return answer(ctx, p.b, w.addr) })
	until(t, "the witness was told of web01", func() error {
		if c := w.s.Clusters(); len(c) != 1 || c[0].Modules != 1 {
			return fmt.Errorf("%+v", c)
		}
		return nil
	})
	ans, err := p.b.node.witnesses()[0].Ask(ctx,
		cluster.Ask{Module: p.identity("web01"), Node: "beta", Epoch: 2, Complete: 0})
	if err != nil || ans.Yes || ans.Know.Holder != "alpha" {
		t.Errorf("a stale copy asks: %+v, %v", ans, err)
	}
	p.stop(p.b)
	until(t, "alpha notices that beta is away", func() error {
		if err := p.a.node.RemoveWitness(ctx, ""); !errors.Is(err, api.ErrUnreach) {
			return errors.New("it removed the witness alone")
		}
		return nil
	})
	p.start(p.b)
	until(t, "both without it", func() error { return p.a.node.RemoveWitness(ctx, "") })
	if len(p.b.node.witnesses()) != 0 {
		t.Error("beta still has a witness")
	}
	w.close()
	forgetful := &thirdParty{t: t, addr: w.addr, s: newThirdParty(t, p, "forgetful").s}
	forgetful.open()
	t.Cleanup(func() { forgetful.close() })
	until(t, "another one at the same address",
		func() error { _, err := p.a.node.AddWitness(ctx, forgetful.request()); return err })
	until(t, "it was told of web01 too", func() error {
		if c := forgetful.s.Clusters(); len(c) != 1 || c[0].Modules != 1 {
			return fmt.Errorf("%+v", c)
		}
		return nil
	})
}

// answer checks that a node has just these witnesses, all answering, the voter first.
func answer(ctx context.Context, n *member, addrs ...string) error {
	s, err := n.node.Status(ctx)
	if err != nil {
		return err
	}
	if len(s.Witnesses) != len(addrs) {
		return fmt.Errorf("%+v", s.Witnesses)
	}
	for i, w := range s.Witnesses {
		if w.Addr != addrs[i] || !w.Alive || w.Spare != (i > 0) {
			return fmt.Errorf("%+v", s.Witnesses)
		}
	}
	return nil
}

// TestSpareWitness: a spare takes the place of a voter that is gone, on both nodes, and
// of one that is removed; not of one that both nodes cannot replace at once.
func TestSpareWitness(t *testing.T) {
	p := newPair(t)
	ctx := t.Context()
	p.protected("web01")
	first, second := newThirdParty(t, p, "first"), newThirdParty(t, p, "second")
	until(t, "the voter", func() error { _, err := p.b.node.AddWitness(ctx, first.request()); return err })
	st, err := p.b.node.AddWitness(ctx, second.request())
	if err != nil || !st.Spare {
		t.Fatalf("%+v, %v", st, err)
	}
	both := func(voter, spare *thirdParty) func() error {
		return func() error {
			return errors.Join(answer(ctx, p.a, voter.addr, spare.addr), answer(ctx, p.b, voter.addr, spare.addr))
		}
	}
	until(t, "both know both", both(first, second))
	first.close()
	until(t, "the spare votes", func() error {
		for _, n := range []*member{p.a, p.b} {
			if w := n.node.witnesses(); len(w) != 1 || w[0].Name() != second.addr {
				return fmt.Errorf("%+v", n.node.cluster().Voters)
			}
		}
		return nil
	})
	first.open()
	until(t, "the old voter is a spare", both(second, first))
	// A node that crashed between two steps is brought along.
	behind := p.b.node.cluster().Voters
	_, err = p.a.node.voting.Take(ctx, behind.Joined(behind.Spares[0]))
	must(t, err)
	until(t, "the exchange is ended", both(first, second))
	second.close()
	if err := p.b.node.RemoveWitness(ctx, first.addr); !errors.Is(err, api.ErrConflict) {
		t.Errorf("the voter was removed while its spare was gone: %v", err)
	}
	second.open()
	until(t, "the spare is back", both(first, second))
	must(t, p.b.node.RemoveWitness(ctx, first.addr))
	until(t, "the spare took the place of the voter that was removed", func() error {
		return errors.Join(answer(ctx, p.a, second.addr), answer(ctx, p.b, second.addr))
	})
	if err := p.a.node.RemoveWitness(ctx, "127.0.0.1:1"); !errors.Is(err, api.ErrNotFound) {
		t.Errorf("remove of an unknown witness: %v", err)
	}
}
