package node

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"duet/appmodules/engine"
	"duet/cluster"
	"duet/cluster/witness"
	"duet/console/api"
)

const (
	helloEvery = 5 * time.Second // keeps the connection warm: a vote then costs one round trip
	helloTime  = 2 * time.Second
)

// third is the witness as this node reaches it. It is an engine.Witness.
type third struct {
	cfg    cluster.Witness
	client *witness.Client

	mu     sync.Mutex
	failed error
	silent time.Time // since when; zero: it answers
}

// Name is its address, by which admins know it.
func (t *third) Name() string { return t.cfg.Addr }

// Ask asks for its vote.
func (t *third) Ask(ctx context.Context, a cluster.Ask) (cluster.Answer, error) {
	ans, err := t.client.Ask(ctx, a)
	t.note(err)
	return ans, err
}

func (t *third) note(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.failed = err
	switch {
	case err == nil:
		t.silent = time.Time{}
	case t.silent.IsZero():
		t.silent = time.Now()
	}
}

func (t *third) status() *api.WitnessStatus {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := &api.WitnessStatus{Addr: t.cfg.Addr, Alive: t.failed == nil}
	if t.failed != nil {
		since := t.silent
		out.Silent = &since
		out.Why = fmt.Sprintf("nothing stops because of it, but a node that loses its peer now waits: %v", t.failed)
	}
	return out
}

// useWitness begins to use the witness of the configuration, or none.
func (n *Node) useWitness(w *cluster.Witness) error {
	var t *third
	if w != nil {
		var key witness.Fingerprint
		if err := key.UnmarshalText([]byte(w.Key)); err != nil {
			return fmt.Errorf("read the witness's key: %w", err)
		}
		t = &third{cfg: *w, client: witness.NewClient(witness.ClientConfig{Addr: w.Addr, Key: key, ID: w.ID, Certificate: n.identity.Certificate})}
	}
	n.mu.Lock()
	old := n.third
	n.third = t
	n.mu.Unlock()
	if old != nil {
		return old.client.Close()
	}
	return nil
}

func (n *Node) witness() *third {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.third
}

// witnesses are the voters of engines.
func (n *Node) witnesses() []engine.Witness {
	if t := n.witness(); t != nil {
		return []engine.Witness{t}
	}
	return nil
}

// watchWitness greets it now and then.
func (n *Node) watchWitness(ctx context.Context) {
	tick := time.NewTicker(helloEvery)
	defer tick.Stop()
	for {
		if t := n.witness(); t != nil {
			n.greet(ctx, t)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func (n *Node) greet(ctx context.Context, t *third) {
	before := t.status().Alive
	callCtx, cancel := context.WithTimeout(ctx, helloTime)
	_, err := t.client.Hello(callCtx)
	cancel()
	if ctx.Err() != nil {
		return
	}
	t.note(err)
	switch {
	case before && err != nil:
		n.log.Warn("the witness does not answer; nothing stops because of it", "witness", t.cfg.Addr, "err", err)
	case !before && err == nil:
		n.log.Info("the witness answers again", "witness", t.cfg.Addr)
	}
}

// AddWitness registers this cluster with a witness and has all nodes use it. All of
// them have to answer: no node may go on deciding by other means.
func (n *Node) AddWitness(ctx context.Context, r api.WitnessRequest) (api.WitnessStatus, error) {
	c := n.cluster()
	if c.Witness != nil && c.Witness.Addr != r.Addr {
		return api.WitnessStatus{}, fmt.Errorf("%w: %s is the witness; `duet cluster witness remove` first", api.ErrConflict, c.Witness.Addr)
	}
	if _, _, err := net.SplitHostPort(r.Addr); err != nil {
		return api.WitnessStatus{}, fmt.Errorf("%w: %q is no host:port", api.ErrInvalid, r.Addr)
	}
	token, err := witness.ParseToken(r.Token)
	if err != nil {
		return api.WitnessStatus{}, fmt.Errorf("%w: %v", api.ErrInvalid, err)
	}
	if err := n.everybody(ctx); err != nil {
		return api.WitnessStatus{}, err
	}
	id := rand.Text()
	if c.Witness != nil { // said again: the nodes that have it already must not see another
		id = c.Witness.ID
	}
	key, err := witness.Register(ctx, r.Addr, token, witness.Registration{ID: id, Name: c.Name, CA: n.identity.Authority()})
	if err != nil {
		return api.WitnessStatus{}, fmt.Errorf("%w: %v", api.ErrConflict, err)
	}
	if err := n.spreadWitness(ctx, &cluster.Witness{Addr: r.Addr, Key: key.String(), ID: id}); err != nil {
		return api.WitnessStatus{}, err
	}
	t := n.witness()
	n.greet(ctx, t)
	return *t.status(), nil
}

// RemoveWitness has all nodes do without.
func (n *Node) RemoveWitness(ctx context.Context) error {
	if n.cluster().Witness == nil {
		return fmt.Errorf("%w: the cluster has no witness", api.ErrNotFound)
	}
	if err := n.everybody(ctx); err != nil {
		return err
	}
	return n.spreadWitness(ctx, nil)
}

// everybody fails unless every member answers.
func (n *Node) everybody(ctx context.Context) error {
	c, view := n.cluster(), n.gossip.View()
	for _, m := range c.Members {
		if m.Node != c.Self && !view.Alive(m.Node) {
			return fmt.Errorf("%w: %s: who votes can only change while all nodes answer", api.ErrUnreach, m.Node)
		}
	}
	return ctx.Err()
}

// spreadWitness stores the change on the others first: one that does not take it keeps
// the old voter, and so does this node, which is asked to try again.
func (n *Node) spreadWitness(ctx context.Context, w *cluster.Witness) error {
	c := n.cluster()
	for _, m := range c.Members {
		if m.Node == c.Self {
			continue
		}
		if err := n.rpcTo(ctx, m.Node, "witness", w, nil); err != nil {
			return fmt.Errorf("%s does not know of the change, repeat the command: %w", m.Node, err)
		}
	}
	return n.setWitness(w)
}

// setWitness makes the change durable on this node and uses it.
func (n *Node) setWitness(w *cluster.Witness) error {
	c := n.cluster()
	c.Witness = w
	if err := n.setMembers(c); err != nil {
		return err
	}
	return n.useWitness(w)
}

// forgetAtWitness ends a module there, after both nodes dropped it.
func (n *Node) forgetAtWitness(ctx context.Context, module string) {
	t := n.witness()
	if t == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, helloTime)
	defer cancel()
	if err := t.client.ForgetModule(ctx, module); err != nil && !errors.Is(err, context.Canceled) {
		n.log.Warn("the witness still remembers a module that was released", "module", module, "err", err)
	}
}
