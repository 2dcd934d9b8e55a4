package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"duet/appmodules/engine"
	"duet/cluster"
	"duet/cluster/control"
	"duet/cluster/voting"
	"duet/console/api"
	"duet/console/metrics"
)

// newPanel builds the witnesses of this node from the configuration; it connects to none. A key there that is none
// fails it.
func (n *Node) newPanel() (*voting.Panel, error) {
	return voting.New(voting.Config{
		Book: n.members, View: n.gossip.View, Heard: n.heard, Logger: n.log,
		Authority: n.identity.Authority, Certificate: n.identity.Certificate,
		SpareAfter: cmp.Or(n.cfg.SpareAfter, 15*time.Second),
		Call: func(ctx context.Context, node cluster.NodeID, v cluster.Voters) (theirs cluster.Voters, err error) {
			err = n.rpcTo(ctx, node, "voters", v, &theirs)
			return theirs, err
		},
		Apart: func(ctx context.Context, node cluster.NodeID, host string) error {
			err := n.rpcTo(ctx, node, "voters/apart", host, nil)
			if errors.Is(err, api.ErrInvalid) {
				err = &control.Error{Kind: voting.ErrInvalid, Text: err.Error()}
			}
			return err
		},
	})
}

// heard fails unless all mirrors have heard their peers lately: others have no epochs that a witness could forget.
// A new voter remembers none, so each engine has to know itself whether its copy is stale (cluster/DESIGN.md, the
// witness).
func (n *Node) heard(within time.Duration) error {
	for _, m := range n.Mirrors() {
		if _, heard := m.Engine.PeerState(); time.Since(heard) > within {
			return fmt.Errorf("module %s has not heard its peer for a while", m.Module.Name)
		}
	}
	return nil
}

// witnesses are the voters of engines, as they are now: during an exchange there are two, and a grant needs both.
func (n *Node) witnesses() []engine.Witness {
	var out []engine.Witness
	for _, h := range n.voting.Active() {
		out = append(out, h)
	}
	return out
}

// AddWitness has all nodes use a witness: when it returns nil all have stored that. After an error they may be a
// step apart until they meet or it is tried again.
func (n *Node) AddWitness(ctx context.Context, r api.WitnessRequest) (api.WitnessStatus, error) {
	h, err := n.voting.Add(ctx, r.Addr, r.Token)
	if err != nil {
		return api.WitnessStatus{}, translate(err)
	}
	return n.voting.Status(h), nil
}

// RemoveWitness has all nodes do without one; "" is the only one there is.
func (n *Node) RemoveWitness(ctx context.Context, addr string) error {
	return translate(n.voting.Remove(ctx, addr))
}

// ofVoting are the API's kinds of the errors of package voting; nil: it is none of them.
func ofVoting(err error) error {
	for from, to := range map[error]error{
		voting.ErrInvalid: api.ErrInvalid, voting.ErrNotFound: api.ErrNotFound, voting.ErrConflict: api.ErrConflict,
		voting.ErrAway: api.ErrUnreach,
	} {
		if errors.Is(err, from) {
			return to
		}
	}
	return nil
}

// reached are the witnesses in figures.
func (n *Node) reached() (out []metrics.Witness) {
	for _, h := range n.voting.All() {
		_, why := h.Silent()
		out = append(out, metrics.Witness{Name: h.Name(), Alive: why == nil})
	}
	return out
}
