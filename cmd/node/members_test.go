package node

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"duet/cluster"
	"duet/cluster/control"
	"duet/cluster/doctor"
	"duet/cluster/mux"
	"duet/cluster/pki"
	"duet/cluster/witness"
	"duet/cmd/duet/setup"
	"duet/console/api"
)

// overAPI calls alpha's API with a certificate and returns the status.
func (p *pair) overAPI(id *pki.Identity, path string) int {
	p.t.Helper()
	c := http.Client{Transport: &http.Transport{TLSClientConfig: id.Client("alpha")}}
	defer c.CloseIdleConnections()
	resp, err := c.Get("https://" + p.a.node.servedAt() + path)
	must(p.t, err)
	resp.Body.Close()
	return resp.StatusCode
}

// TestRemovedWhileConnected: the membership is looked at in each call, not only when a
// connection begins.
func TestRemovedWhileConnected(t *testing.T) {
	p := newPair(t)
	must(t, p.b.node.rpcTo(t.Context(), "alpha", "version", nil, nil))
	must(t, p.a.node.Change(func(c *cluster.Config) bool { c.Remove("beta", time.Now()); return true }))
	if err := p.b.node.rpcTo(t.Context(), "alpha", "version", nil, nil); !errors.Is(err, control.ErrRemoved) {
		t.Errorf("a call over the connection from before: %v", err)
	}
}

// TestVersionsOfAll: each node knows which program the other one runs, whichever of them asks, and remembers it.
func TestVersionsOfAll(t *testing.T) {
	p := newPair(t)
	knows := func(b *member) func() error {
		return func() error {
			s, err := b.node.Status(t.Context())
			must(t, err)
			for _, n := range s.Nodes {
				if n.Version != "test" {
					return fmt.Errorf("%s says %q of %s", s.Self, n.Version, n.Name)
				}
			}
			return nil
		}
	}
	must(t, p.b.node.rpcTo(t.Context(), "alpha", "version", nil, nil))
	until(t, "alpha knows it, which was asked", knows(p.a))
	until(t, "beta knows it, which has asked", knows(p.b))
	p.stop(p.b)
	must(t, knows(p.a)())
}

// TestNewPingTargets: both nodes go by new ping targets at once, and one that was away does when it is back.
func TestNewPingTargets(t *testing.T) {
	p := newPair(t)
	set := func(want []string, unaware int) {
		t.Helper()
		st, err := p.a.node.SetPing(t.Context(), want)
		if err != nil || len(st.Unaware) != unaware || !slices.Equal(p.a.node.cluster().Ping, want) {
			t.Errorf("%q: %+v, %v", want, st, err)
		}
	}
	set([]string{"10.0.0.254"}, 0)
	if got := p.b.node.cluster().Ping; !slices.Equal(got, []string{"10.0.0.254"}) {
		t.Errorf("beta goes by %q", got)
	}
	p.stop(p.b)
	set(nil, 1)
	p.start(p.b)
	until(t, "beta knows what it missed", func() error {
		if got := p.b.node.cluster().Ping; len(got) > 0 {
			return fmt.Errorf("it goes by %q", got)
		}
		return nil
	})
}

// TestReplacedWhileConnected: a name that another computer has now gives the one before nothing, neither its calls nor
// its answers, over the connections that it still has.
func TestReplacedWhileConnected(t *testing.T) {
	p := newPair(t)
	must(t, p.b.node.rpcTo(t.Context(), "alpha", "version", nil, nil))
	must(t, p.a.node.rpcTo(t.Context(), "beta", "version", nil, nil))
	must(t, p.a.node.Change(func(c *cluster.Config) bool {
		m, _ := c.Member("beta")
		c.Remove("beta", time.Now())
		c.Admit(cluster.Member{Node: "beta", Addrs: m.Addrs, Key: "of another computer"})
		return true
	}))
	if err := p.b.node.rpcTo(t.Context(), "alpha", "version", nil, nil); !errors.Is(err, control.ErrRemoved) {
		t.Errorf("a call of the computer that was beta: %v", err)
	}
	if err := p.a.node.rpcTo(t.Context(), "beta", "version", nil, nil); err == nil {
		t.Error("the computer that was beta answers as beta")
	}
}

// TestRemovedNode: what a node that was removed still has opens nothing: not the API, not the
// port between nodes, and not the witness; heartbeats have another key.
func TestRemovedNode(t *testing.T) {
	p := newPair(t)
	ctx := t.Context()
	p.protected("web01")
	w := newThirdParty(t, p, "witness")
	_, err := p.a.node.AddWitness(ctx, w.request())
	must(t, err)
	until(t, "the witness was told of web01", w.remembers(1))
	voter, key, epoch := p.a.node.cluster().Voters.Active[0], p.a.node.cluster().GossipKeys[0], cluster.Epoch(9)
	id, err := pki.Load(filepath.Join(p.b.dir, pki.Folder))
	must(t, err)
	if code := p.overAPI(id, "/v1/status"); code != http.StatusOK {
		t.Fatalf("a member's certificate: %d", code)
	}
	until(t, "alpha's key is known", func() error {
		if m, _ := p.a.node.cluster().Member("beta"); m.Key == "" {
			return errors.New("beta joined without its key")
		}
		return nil
	})
	p.stop(p.b)
	until(t, "beta is taken for dead", func() error {
		gone, err := p.a.node.RemoveNode(ctx, "beta")
		if err == nil && !strings.Contains(gone.Keeps, "authority") {
			t.Errorf("it is not said what beta keeps: %q", gone.Keeps)
		}
		return err
	})
	if code := p.overAPI(id, "/v1/status"); code != http.StatusUnauthorized {
		t.Errorf("a removed node's certificate opens the API: %d", code)
	}
	var fp witness.Fingerprint
	must(t, fp.UnmarshalText([]byte(voter.Key)))
	asks := witness.NewClient(witness.ClientConfig{Addr: voter.Addr, Key: fp, ID: voter.ID,
		Certificate: func() *tls.Certificate { return id.Certificate() }})
	defer asks.Close()
	until(t, "the witness answers it no more", func() error {
		ans, err := asks.Ask(ctx, cluster.Ask{Module: p.identity("web01"), Node: "beta", Epoch: epoch, Complete: epoch})
		epoch++
		if errors.Is(err, witness.ErrRemoved) {
			return nil
		}
		return fmt.Errorf("it answers %+v, %v", ans, err)
	})
	until(t, "heartbeats have another key", func() error {
		if keys := p.a.node.cluster().GossipKeys; len(keys) != 1 || bytes.Equal(keys[0], key) {
			return fmt.Errorf("%d keys", len(keys))
		}
		return nil
	})
	p.start(p.b) // it knows nothing of that
	until(t, "alpha does not let it in", func() error {
		callCtx, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		err := p.b.node.rpcTo(callCtx, "alpha", "version", nil, nil)
		if err == nil {
			t.Fatal("alpha answers a node that was removed")
		}
		if errors.Is(err, control.ErrRemoved) || strings.Contains(err.Error(), "take this node for a member") {
			return nil
		}
		return err
	})
	until(t, "beta shows that it was removed", func() error {
		st, err := p.b.node.Status(ctx)
		if err == nil && (!strings.Contains(st.Verdict.Text, "this node was removed") || st.Verdict.Level != api.Down) {
			err = fmt.Errorf("its verdict is %+v", st.Verdict)
		}
		return err
	})
	until(t, "the witness has refused it", func() error {
		st, err := p.b.node.Status(ctx)
		must(t, err)
		if w := st.Witnesses[0]; !w.Alive || w.Silent != nil || !strings.Contains(w.Why, "was removed") ||
			strings.Contains(w.Why, "directory") {
			return fmt.Errorf("the witness is %+v", w)
		}
		return nil
	})
	st, err := p.b.node.Status(ctx)
	must(t, err)
	for _, n := range st.Modules[0].Nodes {
		if !strings.Contains(n.Why, "duet cluster rejoin") || !strings.Contains(n.Why, "duet cluster leave") ||
			strings.Contains(n.Why, "duet prim") || len(n.Notices) != 0 {
			t.Errorf("on a node that was removed %s says %q, %+v", n.Node, n.Why, n.Notices)
		}
	}
	d, err := p.b.node.Doctor(ctx)
	must(t, err)
	for _, f := range d.Findings {
		if f.About == "witness" && f.Level != doctor.OK {
			t.Errorf("the witness that refuses a removed node is blamed: %+v", f)
		}
	}
	d, err = p.a.node.Doctor(ctx)
	must(t, err)
	if !slices.ContainsFunc(d.Findings, func(f api.Finding) bool {
		return f.About == "copies" && strings.HasPrefix(f.Fact, "web01 has one copy only: beta")
	}) {
		t.Errorf("nobody says that web01 has one copy only: %+v", d.Findings)
	}
	r, err := p.b.node.Act(ctx, "web01", api.Stop, api.ActionRequest{})
	if err != nil || r.Said != "stops; alpha does not take beta for a member of the cluster: what runs there goes on" {
		t.Errorf("a stop on a node that was removed: %q, %v", r.Said, err)
	}
	for _, action := range []api.Action{api.Start, api.Prim, api.Swap} {
		_, err := p.b.node.Act(ctx, "web01", action, api.ActionRequest{Node: "beta", Yes: true})
		if !errors.Is(err, api.ErrConflict) || !strings.Contains(err.Error(), "duet cluster rejoin") {
			t.Errorf("%s on a node that was removed: %v", action, err)
		}
	}
	p.stop(p.b)
	token, err := p.a.node.NewToken(ctx, 0)
	must(t, err)
	_, kept, err := setup.OnDisk{Dial: mux.DialJoin}.Rejoin(ctx, setup.JoinRequest{Dir: p.b.dir,
		At: fmt.Sprintf("%s:%d", p.a.ip, p.port), Token: token.Token}, time.Now())
	must(t, err)
	p.hasEndpoint(p.b, "web01")
	p.start(p.b)
	p.is(p.b, "web01", "SECOND")
	p.is(p.a, "web01", "PRIM")
	if st, err := p.b.node.Status(ctx); err != nil || st.Removed != "" {
		t.Errorf("after it rejoined: %q, %v", st.Removed, err)
	}
	if _, err := os.Stat(filepath.Join(kept, pki.Folder)); err != nil {
		t.Error(err)
	}
}
