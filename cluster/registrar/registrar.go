// Package registrar is how nodes come into a cluster and leave it: one admits with a token what joins, one removes what
// is gone for good, and all bring together what they know of that until they know the same. The configuration itself is
// package membership's.
//
// A change counts from the moment it is durable on the node that makes it; others learn it from that node, or from
// any that knows it. Serve and Meet are a goroutine each, which the node runs.
package registrar

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"

	"duet/cluster"
	"duet/cluster/enroll"
	"duet/cluster/membership"
	"duet/cluster/pki"
	"duet/console/api"
)

// Store keeps the join tokens durably: Save returns when the value survives power loss.
type Store interface {
	Load(key string, v any) (found bool, err error)
	Save(key string, v any) error
}

// Config says what a Registrar works with; all fields are needed.
type Config struct {
	Book     *membership.Book
	Identity *pki.Identity
	Store    Store
	Alive    func(node cluster.NodeID) bool     // its heartbeats are heard
	Update   func() error                       // has the heartbeats follow the membership
	With     func(node cluster.NodeID) []string // modules whose other copy is on a node; never nil
	// Call asks another node; every call may be repeated.
	Call   func(ctx context.Context, node cluster.NodeID, path string, in, out any) error
	Logger *slog.Logger
}

// Registrar changes who is a member. Any number of goroutines may use it.
type Registrar struct {
	cfg  Config
	door *pki.Admission
}

// New returns a Registrar that admits nobody until Serve.
func New(cfg Config) *Registrar {
	r := &Registrar{cfg: cfg}
	r.door = pki.NewAdmission(pki.AdmissionConfig{Identity: cfg.Identity, Tokens: tokens{cfg.Store},
		Cluster: cfg.Book.Config, Admit: r.admit})
	return r
}

// Serve admits nodes that come with a token until ln is closed or ctx ends.
func (r *Registrar) Serve(ctx context.Context, ln net.Listener) error { return r.door.Serve(ctx, ln) }

// tellTime is how long a newcomer waits for the members to be told of it; its call has pki's callTimeout.
const tellTime = 4 * time.Second

// admit adds a node and tells the other members, all at once and for tellTime at most; those that are away learn it
// when they meet one. After an error the node may be a member all the same, and the error says what to do then.
func (r *Registrar) admit(ctx context.Context, m cluster.Member) (cluster.Config, error) {
	c, err := r.cfg.Book.Change(func(c *cluster.Config) bool { c.Admit(m); return true })
	if err != nil {
		return c, err
	}
	r.cfg.Logger.Info("node admitted", "node", m.Node, "addrs", m.Addrs)
	// The new node's heartbeats have to be known here before it starts.
	if err := r.cfg.Update(); err != nil {
		return c, fmt.Errorf("%w: the name is taken now: `duet cluster remove %s` on %s frees it", err, m.Node, c.Self)
	}
	admitted, _ := c.Member(m.Node)
	ctx, cancel := context.WithTimeout(ctx, tellTime)
	defer cancel()
	var told sync.WaitGroup
	for _, other := range c.Members {
		if other.Node == c.Self || other.Node == m.Node {
			continue
		}
		told.Go(func() {
			if err := r.cfg.Call(ctx, other.Node, "members", cluster.Fact{Member: admitted}, nil); err != nil {
				r.cfg.Logger.Warn("a member does not know the new node yet", "member", other.Node, "node", m.Node,
					"err", err)
			}
		})
	}
	told.Wait()
	return c, nil
}

// Learn takes over what another node knows of the membership. It is durable when it returns nil. An error of the
// heartbeats comes after that.
func (r *Registrar) Learn(f cluster.Fact) error {
	return r.Change(func(c *cluster.Config) bool { return c.Learn(f) })
}

// Gone takes over what another node removed, which has more to tell when they meet.
func (r *Registrar) Gone(node cluster.NodeID) error {
	return r.Learn(cluster.Fact{Member: cluster.Member{Node: node}, Gone: true})
}

// Met answers a node that tells what it knows of the membership. Both sides know the same once the caller has taken
// the answer.
func (r *Registrar) Met(x cluster.Exchange) (cluster.Exchange, error) {
	err := r.Change(func(c *cluster.Config) bool { return c.Take(x) })
	return r.cfg.Book.Config().Exchange(), err
}

// meetEvery is how often one node of the cluster has all of them know the same.
const meetEvery = 5 * time.Second

// Meet brings together what the nodes know of the membership, until ctx ends.
func (r *Registrar) Meet(ctx context.Context) {
	tick := time.NewTicker(meetEvery)
	defer tick.Stop()
	call := func(ctx context.Context, node cluster.NodeID, x cluster.Exchange) (theirs cluster.Exchange, err error) {
		ctx, cancel := context.WithTimeout(ctx, meetEvery)
		defer cancel()
		err = r.cfg.Call(ctx, node, "members/meet", x, &theirs)
		return theirs, err
	}
	for {
		news, err := r.cfg.Book.Meet(ctx, r.cfg.Alive, call)
		if err != nil && ctx.Err() == nil {
			r.cfg.Logger.Debug("not all members know the same yet", "err", err)
		}
		// What was learnt from one node the others may not know: they are met again at once.
		if news && ctx.Err() == nil {
			if err := r.cfg.Update(); err != nil {
				r.cfg.Logger.Warn("heartbeats do not follow the membership", "err", err)
			}
			continue
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// Change makes a change of the membership durable, if alter finds one, and has the heartbeats follow.
func (r *Registrar) Change(alter func(c *cluster.Config) bool) error {
	changed := false
	_, err := r.cfg.Book.Change(func(c *cluster.Config) bool {
		changed = alter(c)
		return changed
	})
	if err != nil || !changed {
		return err
	}
	return r.cfg.Update()
}

// RemoveNode takes a node that is gone for good off the cluster. What it has is left to it: were it to come back,
// the others would not let it in. It is durable here when it returns nil, and others may not know it yet. It touches
// no module: those whose other copy was there are listed. Its fence devices are forgotten with it.
func (r *Registrar) RemoveNode(ctx context.Context, name string) (api.NodeRemoval, error) {
	node, c := cluster.NodeID(name), r.cfg.Book.Config()
	_, known := c.Member(node)
	switch {
	case !known:
		var names []string
		for _, m := range c.Members {
			names = append(names, string(m.Node))
		}
		return api.NodeRemoval{}, fmt.Errorf("node %s: %w%s", name, api.ErrNotFound, api.Known(name, names))
	case node == c.Self:
		return api.NodeRemoval{}, fmt.Errorf("%w: this is node %s: remove it from another one, after it was stopped for good",
			api.ErrConflict, name)
	// A node that runs goes on with its guests although nobody talks to it any more.
	case r.cfg.Alive(node):
		return api.NodeRemoval{}, fmt.Errorf("%w: node %s answers: stop its duetd first, for good: "+
			"`systemctl disable --now duetd` there", api.ErrConflict, name)
	}
	if err := r.Change(func(c *cluster.Config) bool { c.Remove(node, time.Now().UTC()); return true }); err != nil {
		return api.NodeRemoval{}, err
	}
	forgotten := ""
	if len(c.Fence[node]) > 0 {
		forgotten = fmt.Sprintf(" Its fence devices are forgotten: if another computer joins as %s, set those of that one "+
			"with `duet cluster fence set %s`.", name, name)
	}
	r.cfg.Logger.Info("node removed", "node", node, "fence_devices", forgotten != "")
	for _, other := range r.cfg.Book.Config().Members {
		if other.Node == c.Self {
			continue
		}
		// Best effort: what a node has missed it learns when it meets one that knows.
		if err := r.tellGone(ctx, other.Node, node); err != nil {
			r.cfg.Logger.Warn("a member does not know yet that a node was removed; it learns it when it is back",
				"member", other.Node, "node", node, "err", err)
		}
	}
	gone := api.NodeRemoval{Node: name, Modules: r.cfg.With(node), Keeps: fmt.Sprintf("No node and no witness answers %s "+
		"any more, and the key of the heartbeats is exchanged. To bring it back: `duet cluster rejoin` there, which keeps "+
		"what it had. Only to give the computer away: wipe /var/lib/duet on it, as it has a copy of the cluster's "+
		"authority; if that is in foreign hands already, found a new cluster.%s", name, forgotten)}
	return gone, nil
}

// Missed are the nodes that were removed since the last one joined.
func (r *Registrar) Missed() (out []api.GoneNode) {
	for _, f := range r.cfg.Book.Config().Missed() {
		n := api.GoneNode{Name: string(f.Node)}
		if !f.At.IsZero() {
			n.At = &f.At
		}
		out = append(out, n)
	}
	return out
}

// tellGone has a member know that a node was removed.
func (r *Registrar) tellGone(ctx context.Context, member, gone cluster.NodeID) error {
	err := r.cfg.Call(ctx, member, "members/meet", r.cfg.Book.Config().Exchange(), nil)
	// An older release knows no exchange, only the removal itself.
	if errors.Is(err, cluster.ErrOlder) {
		err = r.cfg.Call(ctx, member, "members/"+string(gone)+"/remove", nil, nil)
	}
	return err
}

// PingTargets are the addresses that modules with "available" go by.
func (r *Registrar) PingTargets(context.Context) (api.PingTargets, error) {
	return api.PingTargets{Targets: append([]string{}, r.cfg.Book.Config().Ping...)}, nil
}

// SetPing exchanges the ping targets; none: the default gateway of each node. It is durable here when it returns nil,
// and in use from then on. The other members are told, for tellTime at most; those that do not know it then are named,
// and learn it when they meet one that does.
func (r *Registrar) SetPing(ctx context.Context, targets []string) (api.PingTargets, error) {
	if err := cluster.CheckPing(targets); err != nil {
		return api.PingTargets{}, fmt.Errorf("%w: %v", api.ErrInvalid, err)
	}
	c, err := r.cfg.Book.Change(func(c *cluster.Config) bool { c.SetPing(targets); return true })
	if err != nil {
		return api.PingTargets{}, err
	}
	r.cfg.Logger.Info("ping targets exchanged", "targets", targets)
	ctx, cancel := context.WithTimeout(ctx, tellTime)
	defer cancel()
	var told sync.WaitGroup
	unaware := make([]string, len(c.Members))
	for i, other := range c.Members {
		if other.Node == c.Self {
			continue
		}
		told.Go(func() {
			var theirs cluster.Exchange
			err := r.cfg.Call(ctx, other.Node, "members/meet", c.Exchange(), &theirs)
			if err != nil || theirs.PingStep < c.PingStep { // away, or of a release that does not know them
				r.cfg.Logger.Warn("a member does not know the new ping targets yet", "member", other.Node, "err", err)
				unaware[i] = string(other.Node)
			}
		})
	}
	told.Wait()
	unaware = slices.DeleteFunc(unaware, func(n string) bool { return n == "" })
	return api.PingTargets{Targets: append([]string{}, targets...), Unaware: unaware}, nil
}

// NewToken makes a one-time token for a joining node. A life of zero or less is enroll.Life. Only this node takes
// the token, until it has ended or served.
func (r *Registrar) NewToken(_ context.Context, life time.Duration) (api.Token, error) {
	life = cmp.Or(max(life, 0), enroll.Life)
	t, err := r.door.NewToken(life)
	if err != nil {
		return api.Token{}, err
	}
	return api.Token{Token: t.String(), Expires: time.Now().Add(life)}, nil
}

// tokens keeps join tokens in the store.
type tokens struct{ Store }

const tokensKey = "cluster/tokens"

// Tokens reads them.
func (t tokens) Tokens() ([]enroll.Record, error) {
	var out []enroll.Record
	_, err := t.Load(tokensKey, &out)
	return out, err
}

// SetTokens replaces them durably.
func (t tokens) SetTokens(r []enroll.Record) error { return t.Save(tokensKey, r) }
