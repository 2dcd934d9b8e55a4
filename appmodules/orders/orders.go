// Package orders gives operators' commands to modules, on the node that has to act: which one that is follows from how
// the module stands on both.
//
// It only chooses the node and the order of two nodes; what is known of the peer may be old, and an engine refuses
// what does not fit it. So nothing here protects data. A command is accepted when a call returns; what follows from
// it shows in the status. It has no goroutines and keeps nothing.
//
// orders.go has what each action does; release.go whether a node may give up a module; message.go the way to the other
// node, which another release has to understand: a new command is a line there with a name of its own.
package orders

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"duet/appmodules"
	"duet/appmodules/registry"
	"duet/cluster"
	"duet/console/api"
)

// Config says what a Desk works with; all fields are needed.
type Config struct {
	Self     cluster.NodeID
	Registry *registry.Registry
	// Status is how a module stands on the nodes, as far as this one knows; it asks nobody.
	Status func(m *registry.Entry) []api.NodeState
	// MayMove refuses to move a module to a node that would not start it, unless that is confirmed.
	MayMove func(module, to string, yes bool) error
	// Call asks another node for something of one of its modules.
	Call func(ctx context.Context, node cluster.NodeID, path string, in, out any) error
}

// Desk takes the commands. Any number of goroutines may use it.
type Desk struct{ cfg Config }

// New returns a Desk.
func New(cfg Config) *Desk { return &Desk{cfg} }

// self is this node, in the words of configurations.
func (o *Desk) self() string { return string(o.cfg.Self) }

// Act begins what an operator asked for, on the node that has to act. The result says in a sentence what was begun,
// not what came of it. Errors are those of the API, or of the engine: ErrRefused, ErrConfirm.
func (o *Desk) Act(ctx context.Context, name string, a api.Action, r api.ActionRequest) (api.ActionResult, error) {
	m, err := o.cfg.Registry.Find(name)
	if err != nil {
		return api.ActionResult{}, err
	}
	if r.Node != "" && !slices.Contains(m.Module.Nodes, r.Node) {
		return api.ActionResult{}, fmt.Errorf("%w: module %s runs on %s, not on %q", api.ErrInvalid, name,
			strings.Join(m.Module.Nodes, " and "), r.Node)
	}
	said, err := o.act(ctx, m, a, r)
	if err != nil {
		return api.ActionResult{}, err
	}
	return api.ActionResult{Module: name, Said: said}, nil
}

// act does it and says so in a sentence. What nobody has answered is not known: then this node decides, and its
// engine refuses what it cannot do.
func (o *Desk) act(ctx context.Context, m *registry.Entry, a api.Action, r api.ActionRequest) (string, error) {
	primary, _ := o.Roles(m)
	switch a {
	case api.Start:
		return o.Start(ctx, m, r)
	case api.Stop:
		return o.stop(ctx, m, r, primary)
	case api.Restart:
		node, err := o.where(m, r.Node, primary)
		if err != nil {
			return "", err
		}
		return "restarts on " + node, o.Command(ctx, m, node, appmodules.CmdRestart, r.Yes)
	case api.Swap:
		node, err := o.where(m, r.Node, primary)
		if err != nil {
			return "", err
		}
		return o.move(ctx, m, node, r.Yes)
	case api.Prim:
		node := cmp.Or(r.Node, o.self())
		verb := "becomes primary on "
		if node == primary {
			verb = "is primary already on "
		}
		return verb + node, o.Command(ctx, m, node, appmodules.CmdPrim, r.Yes)
	case api.Second:
		node := cmp.Or(r.Node, o.self())
		leads := o.leads(m, node)
		switch both := o.leads(m, m.Module.Peer(node)); {
		case !leads || both: // after a split brain both lead, and one of them gives up what it wrote
		case r.Node == "":
			return "", fmt.Errorf("%w: module %s is primary on %s: `duet swap %s` makes %s primary in its place",
				api.ErrConflict, m.Module.Name, node, m.Module.Name, m.Module.Peer(node))
		default: // to make a primary a secondary takes a primary: the other one has to be fit for that
			return o.move(ctx, m, node, r.Yes)
		}
		if err := o.mayFollow(m, node); err != nil {
			return "", err
		}
		return "becomes secondary on " + node, o.Command(ctx, m, node, appmodules.CmdSecond, r.Yes)
	}
	return "", fmt.Errorf("%w: action %q", api.ErrInvalid, a)
}

// where is the node on which a module runs, for what is done where it runs: the primary, or the one that was named
// where none is known, or this one. One that was named and is not where it runs is a mistake about how things stand.
func (o *Desk) where(m *registry.Entry, named, primary string) (string, error) {
	if named != "" && o.leads(m, named) { // one of two, after a split brain
		return named, nil
	}
	if named != "" && primary != "" {
		return "", fmt.Errorf("%w: module %s runs on %s, not on %s: --node names where it runs now", api.ErrConflict,
			m.Module.Name, primary, named)
	}
	return cmp.Or(primary, named, o.self()), nil
}

// leads reports whether a node says that it is primary; of one that has not been heard of late it is not known.
func (o *Desk) leads(m *registry.Entry, node string) bool {
	return slices.ContainsFunc(o.cfg.Status(m), func(s api.NodeState) bool {
		return s.Node == node && !s.Stale && leading(s)
	})
}

// leading is a role that a primary has.
func leading(s api.NodeState) bool {
	return s.Role == appmodules.Prim.String() || s.Role == appmodules.Alone.String()
}

// mayFollow refuses to have a node follow one that does not take part: it would not follow but take over. It goes by
// what was last heard, so it keeps people from a mistake and no more.
func (o *Desk) mayFollow(m *registry.Entry, node string) error {
	name, peer := m.Module.Name, m.Module.Peer(node)
	for _, s := range o.cfg.Status(m) {
		switch {
		case s.Node != peer:
		case s.Stale:
			return fmt.Errorf("%w: there is nothing to follow: %s does not answer; `duet start %s` starts what may be started",
				api.ErrConflict, peer, name)
		case s.Stopped:
			return fmt.Errorf("%w: there is nothing to follow: %s is stopped on %s; `duet start %s --node %s` first, or `duet "+
				"start %s`", api.ErrConflict, name, peer, name, peer, name)
		}
	}
	return nil
}

// move swaps the roles of the primary on a node and its peer, which has to be fit for that.
func (o *Desk) move(ctx context.Context, m *registry.Entry, from string, yes bool) (string, error) {
	to := m.Module.Peer(from)
	if err := o.cfg.MayMove(m.Module.Name, to, yes); err != nil {
		return "", err
	}
	return fmt.Sprintf("moves from %s to %s", from, to), o.Command(ctx, m, from, appmodules.CmdSwap, yes)
}

// Start starts the holder of the newest epoch first, so that the other finds it. What that one refuses is the error of
// the action, and the other one is not told: it would have nothing to follow, or go on without the newest data. Where
// one of both nodes does not answer, or the other one refuses, it is no error: what was said is part of the sentence.
func (o *Desk) Start(ctx context.Context, m *registry.Entry, r api.ActionRequest) (string, error) {
	if err := o.mayStart(m, r.Node); err != nil {
		return "", err
	}
	if r.Node != "" {
		return "starts on " + r.Node, o.Command(ctx, m, r.Node, appmodules.CmdStart, r.Yes)
	}
	// Whoever comes first waits for the other a while; the holder needs not to.
	var newest api.NodeState
	for _, s := range o.cfg.Status(m) {
		if s.Epoch > newest.Epoch {
			newest = s
		}
	}
	nodes := slices.Clone(m.Module.Nodes)
	slices.SortStableFunc(nodes, func(a, b string) int {
		rank := func(node string) int {
			if node == newest.Holder {
				return 0
			}
			return 1
		}
		return cmp.Compare(rank(a), rank(b))
	})
	var errs []error
	started := ""
	for _, node := range nodes {
		if err := o.Command(ctx, m, node, appmodules.CmdStart, r.Yes); err != nil {
			if node == newest.Holder && refused(err) {
				return "", err
			}
			errs = append(errs, err)
			continue
		}
		started += " " + node
	}
	if started == "" {
		return "", errors.Join(errs...)
	}
	said := "starts on" + started
	if len(errs) > 0 {
		said += "; " + errors.Join(errs...).Error()
	}
	return said, nil
}

// mayStart refuses a start, on one node or on all (empty), that would not be what was meant: on a node that follows one
// where it runs, or while a stop is on its way, which the start would meet on one node and not on the other. It goes by
// what was last heard, so it keeps people from a mistake and no more.
func (o *Desk) mayStart(m *registry.Entry, node string) error {
	name := m.Module.Name
	for _, s := range o.cfg.Status(m) {
		switch {
		case s.Stale:
		case s.Node == node && s.Role == appmodules.Second.String() && !s.Stopped && o.leads(m, m.Module.Peer(node)):
			return fmt.Errorf("%w: module %s runs on %s already, and %s follows it: `duet swap %s` moves it to %s",
				api.ErrConflict, name, m.Module.Peer(node), node, name, node)
		case node == "" && s.Stopped && s.Status == appmodules.Transient.String():
			return fmt.Errorf("%w: module %s is still being stopped on %s: start it when `duet status %s` shows STOP there",
				api.ErrConflict, name, s.Node, name)
		}
	}
	return nil
}

// refused: the node answered, and does not take the command as things stand.
func refused(err error) bool {
	return slices.ContainsFunc([]error{appmodules.ErrRefused, appmodules.ErrConfirm, api.ErrConflict, api.ErrConfirm},
		func(kind error) bool { return errors.Is(err, kind) })
}

// stop stops one node, whose peer goes on, or both: then the primary ends the
// module and takes its secondary along. On a node that was removed from the cluster it is that node only.
func (o *Desk) stop(ctx context.Context, m *registry.Entry, r api.ActionRequest, primary string) (string, error) {
	if r.Node != "" {
		return "stops on " + r.Node, o.Command(ctx, m, r.Node, appmodules.CmdStop, r.Yes)
	}
	// A peer that was stopped first would leave the primary alone, which costs a resync.
	if primary != "" {
		return "stops", o.Command(ctx, m, primary, appmodules.CmdStopAll, r.Yes)
	}
	var errs []error
	stopped := 0
	parted := o.parted(m)
	for _, node := range m.Module.Nodes {
		if slices.Contains(parted, node) {
			errs = append(errs, fmt.Errorf("%s does not take %s for a member of the cluster: what runs there goes on", node,
				o.self()))
			continue
		}
		if err := o.Command(ctx, m, node, appmodules.CmdStopAll, r.Yes); err != nil {
			errs = append(errs, err)
			continue
		}
		stopped++
	}
	if stopped == 0 {
		return "", errors.Join(errs...)
	}
	said := "stops"
	if len(errs) > 0 {
		said += "; " + errors.Join(errs...).Error()
	}
	return said, nil
}

// parted are the nodes that take this one for no member.
func (o *Desk) parted(m *registry.Entry) (nodes []string) {
	for _, s := range o.cfg.Status(m) {
		if s.Parted {
			nodes = append(nodes, s.Node)
		}
	}
	return nodes
}

// Roles tells which node is primary and which is not, as far as is known; empty if unknown. A node that has not been
// heard of late is neither. After a split brain both may say that they are primary: then it is the one named last.
func (o *Desk) Roles(m *registry.Entry) (primary, second string) {
	for _, s := range o.cfg.Status(m) {
		switch {
		case s.Stale:
		case leading(s):
			primary = s.Node
		default:
			second = s.Node
		}
	}
	return primary, second
}

// Command gives a command to the engine on node, this one or another, which is asked for at most 5 s and refuses if
// another module has the name there. After an error
// of the network it may have been accepted all the same.
func (o *Desk) Command(ctx context.Context, m *registry.Entry, node string, ev appmodules.Event, yes bool) error {
	if node == o.self() {
		return o.cfg.Registry.Order(ctx, m.Module.Name, ev, yes)
	}
	// An engine accepts a command at once: what follows from it shows in the status.
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	path := "modules/" + m.Module.Name + "/command?id=" + url.QueryEscape(m.Module.Identity())
	return o.cfg.Call(ctx, cluster.NodeID(node), path, NewMessage(ev, yes), nil)
}
