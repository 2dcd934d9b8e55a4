// Package fencing is what a node does with the fence devices of its cluster: it keeps them known to all members, tests
// them, and switches nodes off with them. How one device is driven is package fence; when a node has to be switched off
// is decided by the engines, which call Off.
//
// The devices of a node are part of cluster.Config, as package fence encodes them, with their passwords. They are
// known by the name of the node, and forgotten when it is removed or another computer has the name. The exchange of
// the membership (cluster.Exchange) does not carry them: a member that was away knows them only after SetFence is
// repeated.
//
// Files: fencing.go is what devices there are and their orders, watch.go whether they could do their work.
package fencing

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"duet/cluster"
	"duet/cluster/fence"
	"duet/cluster/membership"
	"duet/console/api"
)

// Agents drive devices; *fence.Fencer is the one.
type Agents interface {
	// Off switches off by the first level that confirms it.
	Off(ctx context.Context, levels fence.Levels) error
	// Inspect asks the agent of a device whether what it needs is there.
	Inspect(ctx context.Context, d fence.Device) error
	// Check asks a device whether its node is on, and switches nothing.
	Check(ctx context.Context, d fence.Device) (on bool, err error)
}

// Config says what a Desk works with; all fields are needed.
type Config struct {
	Book   *membership.Book
	Agents Agents
	// Call has another node Take a change.
	Call func(ctx context.Context, node cluster.NodeID, s Set) error
	// Spawn runs a goroutine that ends with the node.
	Spawn  func(func(ctx context.Context))
	Logger *slog.Logger
}

// Desk is where nodes are switched off, each once at a time: all modules that lost a peer ask in the same moment, and
// management controllers take few sessions. Any number of goroutines may use it.
type Desk struct {
	cfg  Config
	kick chan struct{} // devices are new: Watch asks them

	mu     sync.Mutex
	calls  map[cluster.NodeID]*order // those under way
	looks  map[cluster.NodeID]*look  // those under way
	checks map[cluster.NodeID]check  // what was found last
}

// order is one switching off that is under way, for all who want it.
type order struct {
	done chan struct{} // closed when err is set
	err  error
}

// New returns a Desk.
func New(cfg Config) *Desk {
	return &Desk{cfg: cfg, kick: make(chan struct{}, 1), calls: make(map[cluster.NodeID]*order),
		looks: make(map[cluster.NodeID]*look), checks: make(map[cluster.NodeID]check)}
}

// Can reports whether there are devices for the node. It does not wait.
func (d *Desk) Can(node cluster.NodeID) bool { return len(d.cfg.Book.Config().Fence[node]) > 0 }

// Off switches a node off and returns nil when its devices confirmed that. Who gives up, by ctx, leaves the order to
// the others and to itself: it is not known then whether the node is off. It blocks for as long as the devices take,
// at most their Levels.Longest. An error is no proof that the node is on; a confirmation is as old as the order,
// which may have begun before the call.
func (d *Desk) Off(ctx context.Context, node cluster.NodeID) error {
	levels, err := d.levels(node)
	if err != nil {
		return err
	}
	o := d.join(node, levels)
	select {
	case <-o.done:
		return o.err
	case <-ctx.Done():
		return fmt.Errorf("fence %s: %w", node, ctx.Err())
	}
}

// join gives the order to switch the node off, or is one more that waits for it. The order ends with the node's
// life, not with who asked for it.
func (d *Desk) join(node cluster.NodeID, levels fence.Levels) *order {
	d.mu.Lock()
	defer d.mu.Unlock()
	if o := d.calls[node]; o != nil {
		return o
	}
	o := &order{done: make(chan struct{})}
	d.calls[node] = o
	log := d.cfg.Logger.With("node", node)
	d.cfg.Spawn(func(life context.Context) {
		d.quiet(life, node)
		life, cancel := context.WithTimeout(life, levels.Longest())
		defer cancel()
		log.Warn("fence: the node is switched off")
		o.err = d.cfg.Agents.Off(life, levels)
		// Who asks from now on wants it switched off anew: it may have been switched on meanwhile.
		d.mu.Lock()
		delete(d.calls, node)
		d.mu.Unlock()
		if o.err == nil {
			log.Warn("fence: the node is off")
		} else {
			log.Error("fence: the node could not be switched off", "err", o.err)
		}
		close(o.done)
	})
	return o
}

// levels are a node's devices, first those that are tried first.
func (d *Desk) levels(node cluster.NodeID) (fence.Levels, error) {
	raw := d.cfg.Book.Config().Fence[node]
	if len(raw) == 0 {
		return nil, fmt.Errorf("%w: %s has no fence device: `duet cluster fence set %s`", api.ErrNotFound, node, node)
	}
	return fence.Decode(raw)
}

// Fences lists the devices, without their secrets.
func (d *Desk) Fences(context.Context) ([]api.FenceStatus, error) {
	var out []api.FenceStatus
	for _, node := range slices.Sorted(maps.Keys(d.cfg.Book.Config().Fence)) {
		levels, err := d.levels(node)
		if err != nil {
			return nil, err
		}
		st, err := status(node, levels)
		if err != nil {
			return nil, err
		}
		out = append(out, st)
	}
	return out, nil
}

// status is how they are shown. Options go through JSON, where secrets are hidden.
func status(node cluster.NodeID, levels fence.Levels) (api.FenceStatus, error) {
	st := api.FenceStatus{Node: string(node)}
	for _, l := range levels {
		var shown []api.FenceDevice
		for _, d := range l {
			s := api.FenceDevice{Name: d.Name, Agent: d.Agent, Timeout: d.Bound().String()}
			b, err := json.Marshal(d.Options)
			if err == nil {
				err = json.Unmarshal(b, &s.Options)
			}
			if err != nil {
				return st, fmt.Errorf("show fence device %s: %w", d.Name, err)
			}
			shown = append(shown, s)
		}
		st.Levels = append(st.Levels, shown)
	}
	return st, nil
}

// SetFence makes the devices of a node known to every member; none takes them away. It is durable on each that took
// it. After an error some members, or all, do not know them: the command has to be repeated when all answer, for
// nothing else tells them.
func (d *Desk) SetFence(ctx context.Context, node string, levels [][]api.FenceDevice) error {
	c := d.cfg.Book.Config()
	if _, ok := c.Member(cluster.NodeID(node)); !ok {
		return fmt.Errorf("%w: no node %q: `duet cluster status`", api.ErrNotFound, node)
	}
	raw, err := encode(levels)
	if err != nil {
		return fmt.Errorf("%w: %v", api.ErrInvalid, err)
	}
	set := Set{Node: cluster.NodeID(node), Levels: raw}
	if err := d.Take(ctx, set); err != nil {
		return err
	}
	// All are told although one does not answer: each that knows the devices can fence.
	var errs []error
	for _, m := range c.Members {
		if m.Node != c.Self {
			errs = append(errs, d.cfg.Call(ctx, m.Node, set))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("this node knows it, not all others do, repeat the command: %w", err)
	}
	return nil
}

// encode is how levels are stored; nil for none.
func encode(levels [][]api.FenceDevice) (json.RawMessage, error) {
	if len(levels) == 0 {
		return nil, nil
	}
	var own fence.Levels
	for _, l := range levels {
		var devices []fence.Device
		for _, d := range l {
			bound, err := bound(d)
			if err != nil {
				return nil, err
			}
			devices = append(devices, fence.Device{Name: d.Name, Agent: d.Agent, Options: d.Options, Timeout: bound})
		}
		own = append(own, devices)
	}
	b, err := fence.Encode(own)
	return b, errors.Join(own.Validate(), err)
}

// bound reads what a device has as its timeout; 0 if it has none. Its bounds are package fence's.
func bound(d api.FenceDevice) (time.Duration, error) {
	if d.Timeout == "" {
		return 0, nil
	}
	bound, err := time.ParseDuration(d.Timeout)
	if err != nil || bound == 0 {
		return 0, fmt.Errorf("%w %q: timeout %q: write it as 45s or 2m, or leave it out for %s", fence.ErrConfig, d.Name,
			d.Timeout, fence.DefaultTimeout)
	}
	return bound, nil
}

// Set is a change of the devices of one node, as nodes tell each other.
type Set struct {
	Node   cluster.NodeID  `json:"node"`
	Levels json.RawMessage `json:"levels,omitempty"`
}

// Check refuses what is no node or no device.
func (s Set) Check() error {
	if err := s.Node.Check(); err != nil || len(s.Levels) == 0 || string(s.Levels) == "null" {
		return err
	}
	_, err := fence.Decode(s.Levels)
	return err
}

// Take stores the devices of a node durably. A node that would use them first asks their agents, on this computer,
// whether they are complete. The one whose devices they are never uses them, so its computer needs no agent. No
// devices are taken for who is no member: whoever has the name next is another computer. It blocks on the agents and
// the disk.
func (d *Desk) Take(ctx context.Context, set Set) error {
	if self := d.cfg.Book.Config().Self; set.Node != self && len(set.Levels) > 0 {
		levels, err := fence.Decode(set.Levels)
		if err != nil {
			return fmt.Errorf("%w: %v", api.ErrInvalid, err)
		}
		for _, dev := range slices.Concat(levels...) {
			if err := d.cfg.Agents.Inspect(ctx, dev); err != nil {
				return fmt.Errorf("%w: on %s: %v", api.ErrInvalid, self, err)
			}
		}
	}
	// No levels take the node off the list: nil in it would be devices that cannot be read.
	member := false
	c, err := d.cfg.Book.Change(func(c *cluster.Config) bool {
		if _, member = c.Member(set.Node); !member && len(set.Levels) > 0 {
			return false
		}
		c.Fence = maps.Clone(c.Fence) // who reads the configuration has the old map
		if c.Fence == nil {
			c.Fence = make(map[cluster.NodeID]json.RawMessage)
		}
		if len(set.Levels) == 0 {
			delete(c.Fence, set.Node)
		} else {
			c.Fence[set.Node] = set.Levels
		}
		return true
	})
	if err == nil && !member && len(set.Levels) > 0 {
		err = fmt.Errorf("%w: %s does not know node %s (any more): `duet cluster status`", api.ErrNotFound, c.Self, set.Node)
	}
	select {
	case d.kick <- struct{}{}:
	default: // it will look anyhow
	}
	return err
}

// TestFence looks whether the devices could switch the node off. A device that does not answer ends it: what the
// ones before said is not returned then.
func (d *Desk) TestFence(ctx context.Context, node string) (api.FenceStatus, error) {
	levels, err := d.levels(cluster.NodeID(node))
	if err != nil {
		return api.FenceStatus{}, err
	}
	st, err := status(cluster.NodeID(node), levels)
	if err != nil {
		return st, err
	}
	var said []string
	// All levels are tested: the second one is needed when the first fails, and that is too late to find out.
	for _, dev := range slices.Concat(levels...) {
		on, err := d.test(ctx, dev)
		if err != nil {
			return st, fmt.Errorf("%w: %v", api.ErrConflict, err)
		}
		said = append(said, fmt.Sprintf("%s: %s", dev.Name, map[bool]string{true: "on", false: "off"}[on]))
	}
	st.Result = strings.Join(said, ", ")
	return st, nil
}
