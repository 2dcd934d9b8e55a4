package node

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"duet/cluster"
	"duet/cluster/witness"
	"duet/console/api"
)

// agent is a fence agent that notes its orders beside itself.
const agent = `#!/bin/sh
while read -r line; do case "$line" in action=*) action="${line#action=}";; esac; done
echo "$action" >>"$0.log"
case "$action" in
status) exit 2;;
metadata) echo '<resource-agent name="fence_test"><parameters><parameter name="ip"><content type="string"/></parameter></parameters><actions><action name="off"/><action name="on"/><action name="status"/></actions></resource-agent>';;
esac
exit 0
`

// TestFenceDevices: both nodes know them, secrets stay inside, and modules that ask
// together switch the node off once.
func TestFenceDevices(t *testing.T) {
	p := newPair(t)
	ctx := t.Context()
	path := filepath.Join(filepath.Dir(p.a.dir), "fence_test")
	must(t, os.WriteFile(path, []byte(agent), 0o755))
	dev := func(agent string) [][]api.FenceDevice {
		return [][]api.FenceDevice{{{Name: "bmc", Agent: agent, Options: map[string]string{"ip": "10.0.0.9", "password": "geheim"}}}}
	}
	if err := p.a.node.SetFence(ctx, "gamma", dev("fence_test")); !errors.Is(err, api.ErrNotFound) {
		t.Errorf("a node that is none: %v", err)
	}
	if err := p.a.node.SetFence(ctx, "beta", dev("reboot")); !errors.Is(err, api.ErrInvalid) {
		t.Errorf("an agent that is none: %v", err)
	}
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
			if err := p.a.node.fenceOff(ctx, "beta"); err != nil {
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
	if p.a.node.canFence("beta") {
		t.Error("alpha still has the device that beta removed")
	}
}

// memory is a witness.Store.
type memory struct{ jsonStore }

func (m memory) Delete(key string) error { return m.store.Put(nil, key) }

func (m memory) Keys(prefix string) ([]string, error) {
	found, err := m.store.List(prefix)
	var keys []string
	for k := range found {
		keys = append(keys, k)
	}
	return keys, err
}

// TestWitnessOfACluster: added by a token, known to both nodes, told which epoch is
// held, not exchanged without being removed, not changed while a node is away.
func TestWitnessOfACluster(t *testing.T) {
	p := newPair(t)
	ctx := t.Context()
	p.protected("web01")
	s, err := witness.New(witness.Config{Dir: t.TempDir(), Store: memory{jsonStore{p.a.node.store, "witness/"}}})
	must(t, err)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx, ln) }()
	token, err := s.NewToken(0)
	must(t, err)
	req := api.WitnessRequest{Addr: ln.Addr().String(), Token: token.String()}
	if _, err := p.a.node.AddWitness(ctx, api.WitnessRequest{Addr: req.Addr, Token: "duetw1.x"}); !errors.Is(err, api.ErrInvalid) {
		t.Errorf("a broken token: %v", err)
	}
	st, err := p.a.node.AddWitness(ctx, req)
	must(t, err)
	if !st.Alive {
		t.Errorf("the witness does not answer: %+v", st)
	}
	if _, err := p.a.node.AddWitness(ctx, api.WitnessRequest{Addr: "127.0.0.1:1", Token: req.Token}); !errors.Is(err, api.ErrConflict) {
		t.Errorf("a second witness: %v", err)
	}
	until(t, "beta knows it too", func() error {
		s, err := p.b.node.Status(ctx)
		if err == nil && (s.Witness == nil || !s.Witness.Alive) {
			err = errors.New("not yet")
		}
		return err
	})
	until(t, "the witness was told of web01", func() error {
		if c := s.Clusters(); len(c) != 1 || c[0].Modules != 1 {
			return fmt.Errorf("%+v", c)
		}
		return nil
	})
	ans, err := p.b.node.witness().Ask(ctx, cluster.Ask{Module: "web01", Node: "beta", Epoch: 2, Complete: 0})
	if err != nil || ans.Yes || ans.Know.Holder != "alpha" {
		t.Errorf("a stale copy asks: %+v, %v", ans, err)
	}
	p.stop(p.b)
	if err := p.a.node.RemoveWitness(ctx); !errors.Is(err, api.ErrUnreach) {
		until(t, "alpha notices that beta is away", func() error {
			if err := p.a.node.RemoveWitness(ctx); !errors.Is(err, api.ErrUnreach) {
				return errors.New("it removed the witness alone")
			}
			return nil
		})
	}
	p.start(p.b)
	until(t, "both without it", func() error { return p.a.node.RemoveWitness(ctx) })
	if p.b.node.witness() != nil {
		t.Error("beta still has a witness")
	}
	_ = ln.Close()
	<-served
}
