package gossip

import (
	"bytes"
	"context"
	"maps"
	"slices"

	"duet/cluster"
)

// Changed tells the peers about the states now; call it after a change of one.
// It does not wait and may be called with locks of the state held.
func (g *Gossip) Changed() {
	select {
	case g.dirty <- struct{}{}:
	default:
	}
}

// spread is the goroutine that sends the states after Changed, to each peer over
// the first path that takes them. What gets lost comes with memberlist's exchange.
func (g *Gossip) spread(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-g.dirty:
		}
		all := g.encodeAll()
		for n, pv := range g.View().Peers {
			for _, name := range slices.Sorted(maps.Keys(pv.Paths)) {
				if ctx.Err() != nil || !pv.Paths[name] {
					continue
				}
				if s := g.segment(name); s != nil && s.sendReliable(n, all) == nil {
					break
				}
			}
		}
	}
}

// encodeAll is all states as a message.
func (g *Gossip) encodeAll() []byte {
	var out []namedState
	for _, name := range slices.Sorted(maps.Keys(g.cfg.States)) {
		b, err := g.cfg.States[name].MarshalBinary()
		if err != nil {
			g.log.Warn("cannot encode gossiped state", "state", name, "err", err)
			continue
		}
		out = append(out, namedState{name, b})
	}
	return encodeStates(out)
}

// merge takes a message of states and passes on what was news.
func (g *Gossip) merge(b []byte) {
	states, err := decodeStates(b)
	if err != nil {
		g.log.Warn("cannot read gossiped states", "err", err)
		return
	}
	news := false
	for _, in := range states {
		s, ok := g.cfg.States[in.name]
		if !ok {
			continue // of a newer version of duet
		}
		changed, err := mergeOne(s, in.data)
		if err != nil {
			g.log.Warn("cannot merge gossiped state", "state", in.name, "err", err)
		}
		news = news || changed
	}
	if news {
		g.Changed()
	}
}

func mergeOne(s cluster.State, data []byte) (changed bool, err error) {
	before, err := s.MarshalBinary()
	if err != nil {
		return false, err
	}
	if bytes.Equal(before, data) {
		return false, nil
	}
	if err := s.Merge(bytes.Clone(data)); err != nil {
		return false, err
	}
	after, err := s.MarshalBinary()
	return !bytes.Equal(before, after), err
}
