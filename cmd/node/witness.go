package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"duet/appmodules"
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

// silentFor is how long it has not answered; 0: it does.
func (t *third) silentFor() time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.failed == nil {
		return 0
	}
	return max(time.Since(t.silent), 1)
}

// witnessStatus is a witness for admins.
func (n *Node) witnessStatus(t *third) api.WitnessStatus {
	spare := slices.Contains(n.voters().Spares, t.cfg)
	t.mu.Lock()
	defer t.mu.Unlock()
	out := api.WitnessStatus{Addr: t.cfg.Addr, Spare: spare, Alive: t.failed == nil}
	if t.failed == nil {
		return out
	}
	since := t.silent
	out.Silent = &since
	out.Why = fmt.Sprintf("nothing stops because of it, but a node that loses its peer now waits: %v", t.failed)
	if spare {
		out.Why = fmt.Sprintf("it cannot take the voter's place: %v", t.failed)
	}
	return out
}

// useVoters begins to use the witnesses that are stored and ends with those that are not.
func (n *Node) useVoters() error {
	n.mu.Lock()
	before := n.thirds
	n.thirds = make(map[string]*third, len(before))
	var errs []error
	for _, w := range n.cluster().Voters.All() {
		t, err := before[w.ID], error(nil)
		if t == nil {
			if t, err = n.newThird(w); err != nil {
				errs = append(errs, err)
				continue
			}
		}
		delete(before, w.ID)
		n.thirds[w.ID] = t
	}
	n.mu.Unlock()
	return errors.Join(append(errs, hangUp(before))...)
}

// leaveWitnesses ends all connections.
func (n *Node) leaveWitnesses() error {
	n.mu.Lock()
	before := n.thirds
	n.thirds = nil
	n.mu.Unlock()
	return hangUp(before)
}

func hangUp(all map[string]*third) error {
	var errs []error
	for _, t := range all {
		errs = append(errs, t.client.Close())
	}
	return errors.Join(errs...)
}

func (n *Node) newThird(w cluster.Witness) (*third, error) {
	var key witness.Fingerprint
	if err := key.UnmarshalText([]byte(w.Key)); err != nil {
		return nil, fmt.Errorf("read the key of the witness %s: %w", w.Addr, err)
	}
	return &third{cfg: w, failed: errNotAsked, silent: time.Now(), client: witness.NewClient(witness.ClientConfig{Addr: w.Addr, Key: key, ID: w.ID, Certificate: n.identity.Certificate})}, nil
}

// errNotAsked is the state of a witness that was not greeted yet.
var errNotAsked = errors.New("it was not asked yet")

// reached returns how this node reaches some of its witnesses, in their order.
func (n *Node) reached(some []cluster.Witness) []*third {
	n.mu.Lock()
	defer n.mu.Unlock()
	var out []*third
	for _, w := range some {
		if t := n.thirds[w.ID]; t != nil {
			out = append(out, t)
		}
	}
	return out
}

// witnesses are the voters of engines. One that this node cannot use does not vote, and is
// needed all the same.
func (n *Node) witnesses() []engine.Witness {
	n.mu.Lock()
	defer n.mu.Unlock()
	var out []engine.Witness
	for _, w := range n.cluster().Voters.Active {
		if t := n.thirds[w.ID]; t != nil {
			out = append(out, t)
		} else {
			out = append(out, unusable(w))
		}
	}
	return out
}

// unusable is a witness whose key cannot be read, or one of a node that stops.
type unusable cluster.Witness

// Name is its address.
func (u unusable) Name() string { return u.Addr }

// Ask gets no answer.
func (u unusable) Ask(context.Context, cluster.Ask) (cluster.Answer, error) {
	return cluster.Answer{}, errors.New("this node cannot use it")
}

// watchWitnesses greets them now and then, and replaces a voter that is gone.
func (n *Node) watchWitnesses(ctx context.Context) {
	tick := time.NewTicker(helloEvery)
	defer tick.Stop()
	for {
		var greeted sync.WaitGroup
		for _, t := range n.reached(n.cluster().Voters.All()) {
			greeted.Go(func() { n.greet(ctx, t) })
		}
		greeted.Wait()
		n.tendVoters(ctx)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func (n *Node) greet(ctx context.Context, t *third) {
	before := t.silentFor() == 0
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

// forgetAtWitness ends a module at all witnesses, after both nodes dropped it. One that is
// away remembers it for nothing: votes belong to the module's identity.
func (n *Node) forgetAtWitness(ctx context.Context, module appmodules.Module) {
	ctx, cancel := context.WithTimeout(ctx, helloTime)
	defer cancel()
	for _, t := range n.reached(n.cluster().Voters.All()) {
		if err := t.client.ForgetModule(ctx, module.Identity()); err != nil && !errors.Is(err, context.Canceled) {
			n.log.Warn("the witness still remembers a module that was released", "module", module.Name, "witness", t.Name(), "err", err)
		}
	}
}
