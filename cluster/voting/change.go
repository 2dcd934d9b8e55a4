package voting

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"duet/cluster"
	"duet/cluster/enroll"
	"duet/cluster/witness"
)

// metWithin is how fresh the engines' knowledge of their peers is when the voter changes.
const metWithin = 5 * time.Second

// Add registers this cluster with a witness and has all nodes use it: as the voter, or as a spare if there is one.
// All nodes have to answer: none may go on deciding by other means. One that is known at that address and answers
// stays as it is, and its token is not used. One that does not answer under its registration, as when it has lost
// its store or its key, is registered under another ID, as a witness like any new one, and then takes the place of
// itself: under the old ID its empty memory would be taken for the one that was told what was decided. After an
// error beyond the registration the witness may know this cluster without being used; the command may be repeated
// with a new token. It blocks on the witness and on all nodes.
func (p *Panel) Add(ctx context.Context, addr, token string) (*Handle, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("%w: %q is no host:port", ErrInvalid, addr)
	}
	if err := p.apart(ctx, host); err != nil {
		return nil, err
	}
	t, err := witness.ParseToken(token)
	if err != nil {
		return nil, fmt.Errorf("%w: %v", ErrInvalid, err)
	}
	if err := p.everybody(ctx); err != nil {
		return nil, err
	}
	p.busy.Lock()
	defer p.busy.Unlock()
	known := slices.DeleteFunc(p.voters().All(), func(w cluster.Witness) bool { return w.Addr != addr })
	h := p.answering(ctx, known)
	if h == nil {
		if h, err = p.register(ctx, addr, t); err != nil {
			return nil, err
		}
	}
	for _, w := range known {
		if w == h.cfg {
			continue
		}
		if err := p.without(ctx, w); err != nil {
			return nil, err
		}
	}
	return h, nil
}

// register makes this cluster known to a witness under a new ID, and has all nodes know it. It is greeted.
func (p *Panel) register(ctx context.Context, addr string, t enroll.Token) (*Handle, error) {
	w := cluster.Witness{Addr: addr, ID: rand.Text()}
	key, err := witness.Register(ctx, addr, t, witness.Registration{ID: w.ID, Name: p.cfg.Book.Config().Name,
		CA: p.cfg.Authority()})
	if errors.Is(err, witness.ErrUnreached) {
		return nil, fmt.Errorf("%w: %v: is \"duetd witness\" running there, and its port open?", ErrConflict, err)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %v", ErrConflict, err)
	}
	w.Key = key.String()
	if err := p.agree(ctx, p.voters().With(w)); err != nil {
		return nil, err
	}
	h := p.handles([]cluster.Witness{w})[0]
	p.greet(ctx, h)
	return h, nil
}

// without has all nodes do without a witness; a spare takes the voter's place first.
func (p *Panel) without(ctx context.Context, w cluster.Witness) error {
	if v := p.voters(); len(v.Active) > 0 && v.Active[0] == w {
		if err := p.exchange(ctx); err != nil {
			return err
		}
	}
	return p.agree(ctx, p.voters().Without(w))
}

// apart asks every member that answers whether a host is its own computer. A member that is away, or of an older
// release, says nothing.
func (p *Panel) apart(ctx context.Context, host string) error {
	if err := p.Apart(ctx, host); err != nil {
		return err
	}
	c, view := p.cfg.Book.Config(), p.cfg.View()
	for _, m := range c.Members {
		if m.Node == c.Self || !view.Alive(m.Node) {
			continue
		}
		if err := p.cfg.Apart(ctx, m.Node, host); errors.Is(err, ErrInvalid) {
			return err
		}
	}
	return nil
}

// Apart refuses a host that is one of the nodes: its death would take two of three votes. A node knows all addresses
// of its own computer, and those of the others in the configuration. It looks the name up once: a name that leads to
// a node later is not found out. Loopback is fine for nodes that have such addresses themselves, as in tests on one
// computer.
func (p *Panel) Apart(ctx context.Context, host string) error {
	c := p.cfg.Book.Config()
	at, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return fmt.Errorf("%w: %s has no address on %s: %s", ErrInvalid, host, c.Self, cluster.Plain(err))
	}
	loopback := false // nodes have such addresses
	for _, m := range c.Members {
		for _, text := range m.Addrs {
			own, err := netip.ParseAddr(text)
			if err != nil {
				continue // a name: then the witness cannot be told from it
			}
			loopback = loopback || own.IsLoopback()
			if slices.ContainsFunc(at, func(a netip.Addr) bool { return a.Unmap() == own.Unmap() }) {
				return isNode(host, m.Node)
			}
		}
	}
	if slices.ContainsFunc(at, netip.Addr.IsLoopback) {
		if !loopback {
			return fmt.Errorf("%w: %s is each node itself: a witness belongs on a third computer", ErrInvalid, host)
		}
		return nil
	}
	here, err := p.addrs()
	if err != nil {
		return fmt.Errorf("list the addresses of %s: %w", c.Self, err)
	}
	for _, a := range here {
		own, err := netip.ParsePrefix(a.String())
		if err == nil && slices.ContainsFunc(at, func(a netip.Addr) bool { return a.Unmap() == own.Addr().Unmap() }) {
			return isNode(host, c.Self)
		}
	}
	return nil
}

func isNode(host string, node cluster.NodeID) error {
	return fmt.Errorf("%w: %s is node %s: a witness there dies with it, and then nobody can take over; it belongs on a "+
		"third computer", ErrInvalid, host, node)
}

// Remove has all nodes do without the witness at addr; a spare takes the voter's place first. An empty addr means
// the only one. The last one leaves without a successor: from then on nodes decide by other means. The witness
// itself is not told, and keeps what it remembers.
func (p *Panel) Remove(ctx context.Context, addr string) error {
	p.busy.Lock()
	defer p.busy.Unlock()
	v := p.voters()
	w, ok := v.Find(addr)
	switch all := v.All(); {
	case len(all) == 0:
		return fmt.Errorf("%w: the cluster has none", ErrNotFound)
	case addr == "" && len(all) == 1:
		w = all[0]
	case addr == "":
		return fmt.Errorf("%w: there are %d witnesses: say which one", ErrInvalid, len(all))
	case !ok:
		return fmt.Errorf("%w at %s: `duet cluster status` lists them", ErrNotFound, addr)
	}
	if err := p.everybody(ctx); err != nil {
		return err
	}
	return p.without(ctx, w)
}

// exchange gives the voter's place to the first spare that answers, if there is one. It goes on with an exchange
// that was begun, whoever began it. Each step is one agree, and an error leaves the step before.
func (p *Panel) exchange(ctx context.Context) error {
	v := p.voters()
	if len(v.Active) == 1 {
		spare := p.answering(ctx, v.Spares)
		switch {
		case len(v.Spares) == 0:
			return nil
		case spare == nil:
			return fmt.Errorf("%w: no spare answers that could take the place of %s", ErrConflict, v.Active[0].Addr)
		}
		p.log.Warn("a spare takes the witness's place", "witness", v.Active[0].Addr, "spare", spare.Name())
		if err := p.agree(ctx, v.Joined(spare.cfg)); err != nil {
			return err
		}
		v = p.voters()
	}
	if len(v.Active) < 2 {
		return nil
	}
	return p.agree(ctx, v.Settled())
}

// answering is the first of some witnesses that answers now; nil if none does. Each that does not answer takes
// helloTime.
func (p *Panel) answering(ctx context.Context, some []cluster.Witness) *Handle {
	for _, h := range p.handles(some) {
		if p.greet(ctx, h); h.silentFor() == 0 {
			return h
		}
	}
	return nil
}

// tend brings nodes together that know different voters, and ends or begins an exchange. One node of the cluster
// does the latter. The lowest name does it, not the lowest that answers: it does nothing while any node is away.
func (p *Panel) tend(ctx context.Context) {
	if p.everybody(ctx) != nil || !p.busy.TryLock() {
		return // a node is away, or an admin is at it
	}
	defer p.busy.Unlock()
	c := p.cfg.Book.Config()
	v := c.Voters
	ctx, cancel := context.WithTimeout(ctx, 4*helloTime)
	defer cancel()
	if slices.ContainsFunc(c.Members, func(m cluster.Member) bool { return m.Node < c.Self }) {
		return // that one tends them
	}
	if err := p.tellAll(ctx, v); err != nil {
		p.log.Info("the nodes do not agree on the witnesses yet", "err", err)
		return
	}
	gone := p.handles(v.Active)
	if len(v.Active) != 2 && (len(gone) != 1 || gone[0].silentFor() < p.cfg.SpareAfter) {
		return
	}
	if err := p.exchange(ctx); err != nil {
		p.log.Warn("the witness is not replaced yet", "err", err)
	}
}

// agree has all nodes store v, this one last, after all have stored what comes before it. If one does not, the nodes
// are a step apart until it is tried again. This node comes last, so that what it has stored all have: a crash
// before leaves the others ahead, and the next tellAll brings it here.
func (p *Panel) agree(ctx context.Context, v cluster.Voters) error {
	if err := p.fit(ctx, v); err != nil {
		return err
	}
	for _, step := range []cluster.Voters{p.voters(), v} {
		if err := p.tellAll(ctx, step); err != nil {
			return err
		}
	}
	return p.store(v)
}

// tellAll has all other nodes store v. If one knows a newer state, which was agreed to, that one is stored here. It
// asks one after the other and ends with the first that does not do it. Telling the same again is harmless.
func (p *Panel) tellAll(ctx context.Context, v cluster.Voters) error {
	c := p.cfg.Book.Config()
	for _, m := range c.Members {
		if m.Node == c.Self {
			continue
		}
		theirs, err := p.cfg.Call(ctx, m.Node, v)
		if err != nil {
			return fmt.Errorf("%s does not know of the change, repeat the command: %w", m.Node, err)
		}
		if theirs.Newer(v) {
			if err := p.store(theirs); err != nil {
				return err
			}
			return fmt.Errorf("%w: %s knew of a newer change: repeat the command", ErrConflict, m.Node)
		}
	}
	return nil
}

// Take stores what another node proposes, if it is newer and fits, and answers with what is stored. It may be called
// while this node changes voters itself: store takes only what is newer still.
func (p *Panel) Take(ctx context.Context, v cluster.Voters) (cluster.Voters, error) {
	if !v.Newer(p.voters()) {
		return p.voters(), nil
	}
	if err := p.fit(ctx, v); err != nil {
		return p.voters(), err
	}
	err := p.store(v)
	return p.voters(), err
}

// fit checks that this node can do with the voters v: a spare that becomes one answers it too, and its engines know
// what their peers know, so that a witness that remembers nothing cannot be asked for an old epoch. A first witness
// is not looked at so: it takes nobody's place, and holders tell it their epochs (engine.inform).
func (p *Panel) fit(ctx context.Context, v cluster.Voters) error {
	now, self := p.voters(), p.cfg.Book.Config().Self
	if len(now.Active) == 0 || len(v.Active) < 2 {
		return nil
	}
	if spare := v.Active[len(v.Active)-1:]; p.answering(ctx, spare) == nil {
		return fmt.Errorf("%w: %s does not reach the witness %s", ErrConflict, self, spare[0].Addr)
	}
	if err := p.cfg.Heard(metWithin); err != nil {
		return fmt.Errorf("%w: %w on %s", ErrConflict, err, self)
	}
	return nil
}

// store makes v durable on this node, if it is newer than what is, and uses it. An error of use comes after v is
// durable.
func (p *Panel) store(v cluster.Voters) error {
	_, err := p.cfg.Book.Change(func(c *cluster.Config) bool {
		newer := v.Newer(c.Voters)
		if newer {
			c.Voters = v
		}
		return newer
	})
	if err != nil {
		return err
	}
	select {
	case p.kick <- struct{}{}: // one that is new is greeted at once
	default:
	}
	return p.use()
}

// everybody fails unless every member answers. Whether they answer is this node's view by heartbeats; a call may
// still fail.
func (p *Panel) everybody(ctx context.Context) error {
	c, view := p.cfg.Book.Config(), p.cfg.View()
	for _, m := range c.Members {
		if m.Node != c.Self && !view.Alive(m.Node) {
			return fmt.Errorf("%w: %s: who votes can only change while all nodes answer", ErrAway, m.Node)
		}
	}
	return ctx.Err()
}
