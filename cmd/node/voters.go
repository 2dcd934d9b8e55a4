package node

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"slices"
	"time"

	"duet/cluster"
	"duet/cluster/witness"
	"duet/console/api"
)

// Who the witnesses are, agreed to by all nodes: package cluster has the rule.

// metWithin is how fresh the engines' knowledge of their peers is when the voter changes.
const metWithin = 5 * time.Second

// voters are the witnesses as this node stored them.
func (n *Node) voters() cluster.Voters { return n.cluster().Voters }

// AddWitness registers this cluster with a witness and has all nodes use it: as the
// voter, or as a spare if there is one. All nodes have to answer: none may go on
// deciding by other means.
func (n *Node) AddWitness(ctx context.Context, r api.WitnessRequest) (api.WitnessStatus, error) {
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
	n.voting.Lock()
	defer n.voting.Unlock()
	v := n.voters()
	w, again := v.Find(r.Addr)
	if !again {
		w = cluster.Witness{Addr: r.Addr, ID: rand.Text()}
	}
	key, err := witness.Register(ctx, r.Addr, token, witness.Registration{ID: w.ID, Name: n.cluster().Name, CA: n.identity.Authority()})
	if err != nil {
		return api.WitnessStatus{}, fmt.Errorf("%w: %v", api.ErrConflict, err)
	}
	if again && w.Key != key.String() {
		return api.WitnessStatus{}, fmt.Errorf("%w: the witness at %s has another key than before: `duet cluster witness remove %s` first", api.ErrConflict, r.Addr, r.Addr)
	}
	if !again {
		w.Key = key.String()
		if err := n.agree(ctx, v.With(w)); err != nil {
			return api.WitnessStatus{}, err
		}
	}
	for _, t := range n.reached([]cluster.Witness{w}) {
		n.greet(ctx, t)
		return n.witnessStatus(t), nil
	}
	return api.WitnessStatus{}, fmt.Errorf("%w: the witness was removed meanwhile", api.ErrConflict)
}

// RemoveWitness has all nodes do without the witness at addr; a spare takes the voter's
// place first. An empty addr means the only one.
func (n *Node) RemoveWitness(ctx context.Context, addr string) error {
	n.voting.Lock()
	defer n.voting.Unlock()
	v := n.voters()
	w, ok := v.Find(addr)
	switch all := v.All(); {
	case len(all) == 0:
		return fmt.Errorf("%w: the cluster has no witness", api.ErrNotFound)
	case addr == "" && len(all) == 1:
		w = all[0]
	case addr == "":
		return fmt.Errorf("%w: there are %d witnesses: say which one", api.ErrInvalid, len(all))
	case !ok:
		return fmt.Errorf("%w: no witness at %s: `duet cluster status` lists them", api.ErrNotFound, addr)
	}
	if err := n.everybody(ctx); err != nil {
		return err
	}
	if len(v.Active) > 0 && v.Active[0] == w {
		if err := n.exchangeVoter(ctx); err != nil {
			return err
		}
	}
	return n.agree(ctx, n.voters().Without(w))
}

// exchangeVoter gives the voter's place to the first spare that answers, if there is one.
func (n *Node) exchangeVoter(ctx context.Context) error {
	v := n.voters()
	if len(v.Active) == 1 {
		spare := n.answering(ctx, v.Spares)
		switch {
		case len(v.Spares) == 0:
			return nil
		case spare == nil:
			return fmt.Errorf("%w: no spare answers that could take the place of %s", api.ErrConflict, v.Active[0].Addr)
		}
		n.log.Warn("a spare takes the witness's place", "witness", v.Active[0].Addr, "spare", spare.Name())
		if err := n.agree(ctx, v.Joined(spare.cfg)); err != nil {
			return err
		}
		v = n.voters()
	}
	if len(v.Active) < 2 {
		return nil
	}
	return n.agree(ctx, v.Settled())
}

// answering is the first of some witnesses that answers now; nil if none does.
func (n *Node) answering(ctx context.Context, some []cluster.Witness) *third {
	for _, t := range n.reached(some) {
		if n.greet(ctx, t); t.silentFor() == 0 {
			return t
		}
	}
	return nil
}

// tendVoters brings nodes together that know different voters, and ends or begins an
// exchange. One node of the cluster does the latter.
func (n *Node) tendVoters(ctx context.Context) {
	if n.everybody(ctx) != nil || !n.voting.TryLock() {
		return // a node is away, or an admin is at it
	}
	defer n.voting.Unlock()
	c := n.cluster()
	v := c.Voters
	ctx, cancel := context.WithTimeout(ctx, 4*helloTime)
	defer cancel()
	if slices.ContainsFunc(c.Members, func(m cluster.Member) bool { return m.Node < c.Self }) {
		return // that one tends them
	}
	if err := n.tellAll(ctx, v); err != nil {
		n.log.Info("the nodes do not agree on the witnesses yet", "err", err)
		return
	}
	gone := n.reached(v.Active)
	if len(v.Active) != 2 && (len(gone) != 1 || gone[0].silentFor() < cmp.Or(n.cfg.SpareAfter, 15*time.Second)) {
		return
	}
	if err := n.exchangeVoter(ctx); err != nil {
		n.log.Warn("the witness is not replaced yet", "err", err)
	}
}

// agree has all nodes store v, this one last, after all have stored what comes before it.
// If one does not, the nodes are a step apart until it is tried again.
func (n *Node) agree(ctx context.Context, v cluster.Voters) error {
	if err := n.fit(ctx, v); err != nil {
		return err
	}
	for _, step := range []cluster.Voters{n.voters(), v} {
		if err := n.tellAll(ctx, step); err != nil {
			return err
		}
	}
	return n.storeVoters(v)
}

// tellAll has all other nodes store v.
func (n *Node) tellAll(ctx context.Context, v cluster.Voters) error {
	c := n.cluster()
	for _, m := range c.Members {
		if m.Node == c.Self {
			continue
		}
		if err := n.tellVoters(ctx, m.Node, v); err != nil {
			return err
		}
	}
	return nil
}

// tellVoters has a node store v. If it knows a newer state, which was agreed to, that one
// is stored here.
func (n *Node) tellVoters(ctx context.Context, node cluster.NodeID, v cluster.Voters) error {
	var theirs cluster.Voters
	if err := n.rpcTo(ctx, node, "voters", v, &theirs); err != nil {
		return fmt.Errorf("%s does not know of the change, repeat the command: %w", node, err)
	}
	if theirs.Newer(v) {
		if err := n.storeVoters(theirs); err != nil {
			return err
		}
		return fmt.Errorf("%w: %s knew of a newer change: repeat the command", api.ErrConflict, node)
	}
	return nil
}

// takeVoters stores what another node proposes, if it is newer and fits, and answers with
// what is stored.
func (n *Node) takeVoters(ctx context.Context, v cluster.Voters) (cluster.Voters, error) {
	if !v.Newer(n.voters()) {
		return n.voters(), nil
	}
	if err := n.fit(ctx, v); err != nil {
		return n.voters(), err
	}
	if err := n.storeVoters(v); err != nil {
		return n.voters(), err
	}
	for _, t := range n.reached(v.All()) {
		if t.silentFor() > 0 {
			n.spawn(func(ctx context.Context) { n.greet(ctx, t) })
		}
	}
	return n.voters(), nil
}

// fit checks that this node can do with the voters v: a spare that becomes one answers
// it too, and its engines know what their peers know, so that a witness that remembers
// nothing cannot be asked for an old epoch.
func (n *Node) fit(ctx context.Context, v cluster.Voters) error {
	now := n.voters()
	if len(now.Active) == 0 || len(v.Active) < 2 {
		return nil
	}
	if spare := v.Active[len(v.Active)-1:]; n.answering(ctx, spare) == nil {
		return fmt.Errorf("%w: %s does not reach the witness %s", api.ErrConflict, n.self(), spare[0].Addr)
	}
	for _, m := range n.mirrors() {
		if _, heard := m.engine.PeerState(); time.Since(heard) > metWithin {
			return fmt.Errorf("%w: module %s has not heard its peer for a while on %s", api.ErrConflict, m.cfg.Name, n.self())
		}
	}
	return nil
}

// storeVoters makes v durable on this node, if it is newer than what is, and uses it.
func (n *Node) storeVoters(v cluster.Voters) error {
	_, err := n.change(func(c *cluster.Config) bool {
		newer := v.Newer(c.Voters)
		if newer {
			c.Voters = v
		}
		return newer
	})
	if err != nil {
		return err
	}
	return n.useVoters()
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
