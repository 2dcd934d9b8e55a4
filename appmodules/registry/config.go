package registry

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"duet/appmodules"
	"duet/appmodules/config"
	"duet/cluster"
	"duet/console/api"
)

const (
	sendTime  = 5 * time.Second // that a peer may take to store a configuration
	sendAgain = 2 * time.Second // after which one that is away is tried again
)

// API is the configuration for admins.
func (s Stored) API() (api.Config, error) {
	text, err := config.Format(s.Module)
	return api.Config{Module: s.Module.Name, Version: s.Version.Number, Changed: s.Version.Changed, By: s.Version.By,
		YAML: string(text)}, err
}

// Config returns the YAML of a module.
func (r *Registry) Config(_ context.Context, name string) (api.Config, error) {
	e, err := r.Find(name)
	if err != nil {
		return api.Config{}, err
	}
	return e.Stored().API()
}

// Check validates YAML and what of it depends on this cluster. It changes nothing; a name that no module has is fine.
func (r *Registry) Check(_ context.Context, text string) error {
	m, err := r.parse(text)
	if err != nil {
		return err
	}
	if have, err := r.Find(m.Name); err == nil {
		m.ID = cmp.Or(m.ID, have.Module.ID)
		return unchangeable(have.Module, m)
	}
	return nil
}

// parse reads YAML and what of it depends on this cluster: its nodes have to be members, else nobody could be sent it.
func (r *Registry) parse(text string) (appmodules.Module, error) {
	m, err := config.Parse("config", []byte(text))
	if err != nil {
		return m, fmt.Errorf("%w: %v", api.ErrInvalid, err)
	}
	c := r.cfg.Cluster()
	for _, node := range m.Nodes {
		if _, ok := c.Member(cluster.NodeID(node)); !ok {
			return m, fmt.Errorf("%w: nodes: %q is no member of cluster %s: `duet cluster status`", api.ErrInvalid, node,
				c.Name)
		}
	}
	return m, nil
}

// unchangeable refuses edits of what a module is made of.
func unchangeable(have, want appmodules.Module) error {
	strange := func(node string) bool { return !slices.Contains(have.Nodes, node) }
	nodes := len(have.Nodes) == len(want.Nodes) && !slices.ContainsFunc(want.Nodes, strange)
	if have.ID != want.ID || have.Kind != want.Kind || !nodes {
		return fmt.Errorf("%w: id, kind and nodes of a module cannot be edited", api.ErrInvalid)
	}
	if err := have.Spec.Keeps(want.Spec); err != nil {
		return fmt.Errorf("%w: %w", api.ErrInvalid, err)
	}
	return nil
}

// Apply stores YAML as the newest version and sends it to the peer, without
// waiting for one that is away: it is sent again until the peer is back, or when this daemon starts. YAML that says
// what is so already makes no version. After an error it may be stored and in force here all the same, and then the
// peer gets it, too. Two edits on two nodes at once make two versions of one number, of which that of the later name is
// kept on both, see Version.
// The text is an edit of version base; 0: of whatever there is.
func (r *Registry) Apply(ctx context.Context, text string, base uint64) (api.Config, error) {
	m, err := r.parse(text)
	if err != nil {
		return api.Config{}, err
	}
	done, err := r.turns.take(ctx, m.Name) // two edits at a time would be one version
	if err != nil {
		return api.Config{}, err
	}
	defer done()
	have, err := r.Find(m.Name)
	if err != nil {
		return api.Config{}, err
	}
	m.ID = cmp.Or(m.ID, have.Module.ID) // as it was shown by an older release
	if err := unchangeable(have.Module, m); err != nil {
		return api.Config{}, err
	}
	s := have.Stored()
	if base != 0 && base != s.Version.Number {
		return api.Config{}, fmt.Errorf("%w: %s is at version %d, by %s, and this is an edit of version %d: look at it with "+
			"`duet config show %s`", api.ErrConflict, m.Name, s.Version.Number, s.Version.By, base, m.Name)
	}
	if same, err := alike(s.Module, m); err != nil {
		return api.Config{}, err
	} else if same {
		return s.API()
	}
	s = Stored{Version{have.Version.Number + 1, time.Now().UTC(), string(r.self())}, m}
	if err := r.edit(ctx, s); err != nil {
		return api.Config{}, err
	}
	return s.API()
}

// edit is replace with what this node makes the newest version, which the peer is sent if it counts here: also where
// the Runner takes it later than ctx lasts, as another edit of the peer would have the same number.
func (r *Registry) edit(ctx context.Context, s Stored) error {
	err := r.replace(ctx, s)
	if now, findErr := r.Find(s.Module.Name); findErr == nil && now.Version == s.Version {
		r.send(s.Module)
	}
	return err
}

// alike: the modules say the same.
func alike(a, b appmodules.Module) (bool, error) {
	one, err := config.Format(a)
	if err != nil {
		return false, err
	}
	other, err := config.Format(b)
	return bytes.Equal(one, other), err
}

// Edited takes the configuration of an edit that an admin made on another node: it may change what Apply may, of the
// module named name.
func (r *Registry) Edited(ctx context.Context, name string, s Stored) error {
	e, err := r.Find(name)
	if err != nil {
		return err
	}
	if err := unchangeable(e.Module, s.Module); err != nil || s.Module.Name != name {
		return cmp.Or(err, fmt.Errorf("%w: it is of module %s", api.ErrInvalid, s.Module.Name))
	}
	return r.Take(ctx, s)
}

// Take replaces the configuration of a module on this node if s is newer. What runs goes on:
// an edit of the policy is none of what it is made of. Only where an image of this node has
// another place the Runner is exchanged, and the new one is built before the old one goes.
func (r *Registry) Take(ctx context.Context, s Stored) error {
	done, err := r.turns.take(ctx, s.Module.Name)
	if err != nil {
		return err
	}
	defer done()
	return r.replace(ctx, s)
}

// Given takes the configuration s, of which the peer was given the module: it is that of version base, or the one after
// it with the places where the peer has its images. Where the module has another version than base by now, an edit has
// come meanwhile, of which the peer may have heard nothing: it stays, gets those places and is sent.
func (r *Registry) Given(ctx context.Context, base Version, s Stored) error {
	return r.inTurn(ctx, s.Module.Name, func() error {
		e, err := r.Find(s.Module.Name)
		if err != nil {
			return err
		}
		if e.Version == base {
			return r.replace(ctx, s)
		}
		if s.Version == base { // in the places that it had
			r.send(e.Module)
			return nil
		}
		next := e.Stored()
		next.Module.Spec = next.Module.Spec.On(s.Module.Volumes())
		number := max(e.Version.Number, s.Version.Number) + 1
		next.Version = Version{number, time.Now().UTC(), string(r.self())}
		return r.edit(ctx, next)
	})
}

// replace is Take in the turn of the module's name. The configuration is durable before anything goes by it. A Runner
// is exchanged under exchange, so that no order gets lost in between. After an error of Configure it counts all the
// same: the Runner takes it a little later.
func (r *Registry) replace(ctx context.Context, s Stored) error {
	e, err := r.Find(s.Module.Name)
	if err != nil {
		return err
	}
	if !s.Version.newer(e.Version) {
		return nil
	}
	if err := mayBecome(e.Module, s.Module); err != nil {
		return err
	}
	if s.Version.Number == e.Version.Number {
		r.cfg.Logger.Warn("two edits at once on two nodes: the other one is kept", "module", s.Module.Name, "version",
			s.Version.Number, "by", s.Version.By, "lost", e.Version.By, "remedy", "duet config show "+s.Module.Name)
	}
	// An entry is a value: who has the old one goes on with what it said.
	next := *e
	next.Module, next.Version = s.Module, s.Version
	if r.sameHere(e.Module, s.Module) {
		if err := r.values().Save(configKey(s.Module.Name), s); err != nil {
			return err
		}
		err := e.Run.Configure(ctx, s.Module)
		r.list(&next)
		return err
	}
	done, err := r.exchange.take(ctx, s.Module.Name)
	if err != nil {
		return err
	}
	defer done()
	// The one that runs goes on if this fails: a module without a Runner would be fenced, and say PRIM.
	if err := r.build(&next); err != nil {
		return err
	}
	if err := r.values().Save(configKey(s.Module.Name), s); err != nil {
		return err
	}
	e.Run.Stop(ctx)
	r.list(&next)
	next.Run.Start()
	return nil
}

// mayBecome validates what may come from another node: of the volumes only the place of an image
// may have changed, which a restore on a new computer does.
func mayBecome(have, want appmodules.Module) error {
	if faults := want.Validate(); len(faults) > 0 {
		return fmt.Errorf("%w: %s", api.ErrInvalid, faults[0].Error())
	}
	// Keeps compares paths too: to it the places are as they were.
	placed := slices.Clone(want.Volumes())
	for i, v := range have.Volumes() {
		if i < len(placed) {
			placed[i].Paths = v.Paths
		}
	}
	want.Spec = want.Spec.On(placed)
	return unchangeable(have, want)
}

// sameHere: what the module is made of on this node is the same.
func (r *Registry) sameHere(a, b appmodules.Module) bool {
	self := string(r.self())
	return slices.EqualFunc(a.Volumes(), b.Volumes(), func(v, w appmodules.Volume) bool {
		return v.Paths[self] == w.Paths[self]
	})
}

// send gives the other nodes of a module the version that this one has.
func (r *Registry) send(m appmodules.Module) {
	for _, node := range m.Nodes {
		if node != string(r.self()) {
			r.cfg.Spawn(func(ctx context.Context) { r.sendTo(ctx, cluster.NodeID(node), m.Name) })
		}
	}
}

// sendTo repeats until the node has this version or a newer one replaced it here.
func (r *Registry) sendTo(ctx context.Context, peer cluster.NodeID, name string) {
	for ctx.Err() == nil {
		e, err := r.Find(name)
		if err != nil {
			return
		}
		callCtx, cancel := context.WithTimeout(ctx, sendTime)
		err = r.cfg.Send(callCtx, peer, e.Stored())
		cancel()
		if err == nil {
			return
		}
		// Asked again it would say the same; the admin sees both versions in status and log.
		if !errors.Is(err, api.ErrUnreach) {
			r.cfg.Logger.Warn("the peer does not take the configuration", "module", name, "peer", peer, "err", err)
			return
		}
		select {
		case <-time.After(sendAgain):
		case <-ctx.Done():
		}
	}
}
