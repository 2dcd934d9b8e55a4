package node

import (
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

// Config returns the YAML of a module.
func (n *Node) Config(_ context.Context, name string) (api.Config, error) {
	m, err := n.module(name)
	if err != nil {
		return api.Config{}, err
	}
	return apiConfig(stored{m.version, m.cfg})
}

func apiConfig(s stored) (api.Config, error) {
	text, err := formatYAML(s.Module)
	return api.Config{Module: s.Module.Name, Version: s.Version.Number, Changed: s.Version.Changed, By: s.Version.By, YAML: text}, err
}

// Check validates YAML and what of it depends on this cluster.
func (n *Node) Check(_ context.Context, text string) error {
	m, err := n.parse(text)
	if err != nil {
		return err
	}
	if have, err := n.module(m.Name); err == nil {
		m.ID = cmp.Or(m.ID, have.cfg.ID)
		return unchangeable(have.cfg, m)
	}
	return nil
}

func (n *Node) parse(text string) (appmodules.Module, error) {
	m, err := config.Parse("config", []byte(text))
	if err != nil {
		return m, fmt.Errorf("%w: %v", api.ErrInvalid, err)
	}
	c := n.cluster()
	for _, node := range m.Nodes {
		if _, ok := c.Member(cluster.NodeID(node)); !ok {
			return m, fmt.Errorf("%w: nodes: %q is no member of cluster %s: `duet cluster status`", api.ErrInvalid, node, c.Name)
		}
	}
	return m, nil
}

// unchangeable refuses edits of what a module is made of.
func unchangeable(have, want appmodules.Module) error {
	nodes := len(have.Nodes) == len(want.Nodes) && !slices.ContainsFunc(want.Nodes, func(node string) bool { return !slices.Contains(have.Nodes, node) })
	if have.ID != want.ID || have.Kind != want.Kind || !nodes {
		return fmt.Errorf("%w: id, kind and nodes of a module cannot be edited", api.ErrInvalid)
	}
	if err := have.Spec.Keeps(want.Spec); err != nil {
		return fmt.Errorf("%w: %w", api.ErrInvalid, err)
	}
	return nil
}

// Apply stores YAML as the newest version and sends it to the peer, without
// waiting for one that is away: it fetches the newer version when it is back.
func (n *Node) Apply(ctx context.Context, text string) (api.Config, error) {
	m, err := n.parse(text)
	if err != nil {
		return api.Config{}, err
	}
	have, err := n.module(m.Name)
	if err != nil {
		return api.Config{}, err
	}
	m.ID = cmp.Or(m.ID, have.cfg.ID) // as it was shown by an older release
	if err := unchangeable(have.cfg, m); err != nil {
		return api.Config{}, err
	}
	s := stored{version{have.version.Number + 1, time.Now().UTC(), string(n.self())}, m}
	if err := n.applyConfig(ctx, s); err != nil {
		return api.Config{}, err
	}
	n.sendConfig(m)
	return apiConfig(s)
}

// sendConfig gives the other nodes of a module the version that this one has.
func (n *Node) sendConfig(m appmodules.Module) {
	for _, node := range m.Nodes {
		if node != string(n.self()) {
			n.spawn(func(ctx context.Context) { n.sendConfigTo(ctx, cluster.NodeID(node), m.Name) })
		}
	}
}

// sendConfigTo repeats until the node has this version or a newer one replaced it here.
func (n *Node) sendConfigTo(ctx context.Context, peer cluster.NodeID, name string) {
	for ctx.Err() == nil {
		m, err := n.module(name)
		if err != nil {
			return
		}
		callCtx, cancel := context.WithTimeout(ctx, 5*time.Second)
		err = n.rpcTo(callCtx, peer, "modules/"+name+"/config", stored{m.version, m.cfg}, nil)
		cancel()
		if err == nil {
			return
		}
		if !errors.Is(err, api.ErrUnreach) {
			n.log.Warn("the peer does not take the configuration", "module", name, "peer", peer, "err", err)
			return
		}
		select {
		case <-time.After(2 * time.Second):
		case <-ctx.Done():
		}
	}
}
