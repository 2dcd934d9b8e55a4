package fencing

import (
	"context"
	"maps"
	"slices"
	"time"

	"duet/cluster"
	"duet/cluster/fence"
)

// checkEvery is how often devices are asked: seldom, for management controllers take few sessions and log each.
const checkEvery = 5 * time.Minute

// check is what the last look at the devices of a node found.
type check struct {
	of     string            // the devices as they are stored: of others it says nothing
	faults map[string]string // by device; those that are not there answered
}

// look is one that is under way, for all who want it.
type look struct {
	done   chan struct{} // closed when it has ended, and what it found is kept
	cancel context.CancelFunc
}

// Watch asks the devices that this node would use now and then whether they could do their work, and switches nothing:
// one that nobody has tried for a year is none. It returns when ctx ends. Nodes are asked side by side, the devices of
// one node one after the other, each in its own time.
func (d *Desk) Watch(ctx context.Context) {
	tick := time.NewTicker(checkEvery)
	defer tick.Stop()
	for {
		for _, node := range d.others() {
			d.look(node)
		}
		select {
		case <-tick.C:
		case <-d.kick:
		case <-ctx.Done():
			return
		}
	}
}

// Failing are the devices that keep this node from switching another one off, by what was found last; none while a
// level is left whose devices all answered, or before they were looked at. It does not wait.
func (d *Desk) Failing(node cluster.NodeID) []string {
	levels, known, err := d.known(node)
	if err != nil {
		return nil
	}
	var failing []string
	for _, level := range levels {
		sound := true
		for _, dev := range level {
			if known.faults[dev.Name] != "" {
				failing, sound = append(failing, dev.Name), false
			}
		}
		if sound {
			return nil
		}
	}
	return failing
}

// Found is how a device stands.
type Found struct {
	Node    cluster.NodeID // that it switches off
	Device  string
	Problem string // why it could not do so; empty: it could, or it is Unknown
	Unknown bool   // it has not answered yet, and never before
}

// Look asks the devices that this node would use. Where they have not answered when ctx ends, it is what was found the
// last time. While a node is being switched off its devices are not asked.
func (d *Desk) Look(ctx context.Context) (out []Found) {
	var under []*look
	for _, node := range d.others() {
		if l := d.look(node); l != nil {
			under = append(under, l)
		}
	}
	for _, l := range under {
		select {
		case <-l.done:
		case <-ctx.Done():
		}
	}
	for _, node := range d.others() {
		levels, known, err := d.known(node)
		if err != nil {
			out = append(out, Found{Node: node, Device: "of " + string(node), Problem: err.Error()})
			continue
		}
		for _, dev := range slices.Concat(levels...) {
			out = append(out, Found{Node: node, Device: dev.Name, Problem: known.faults[dev.Name], Unknown: known.of == ""})
		}
	}
	return out
}

// others are the nodes that this one has devices for; its own it never uses.
func (d *Desk) others() []cluster.NodeID {
	c := d.cfg.Book.Config()
	return slices.DeleteFunc(slices.Sorted(maps.Keys(c.Fence)), func(n cluster.NodeID) bool { return n == c.Self })
}

// known is what was found of a node's devices as they are now; its zero value if they were not looked at.
func (d *Desk) known(node cluster.NodeID) (fence.Levels, check, error) {
	levels, err := d.levels(node)
	if err != nil {
		return nil, check{}, err
	}
	of := string(d.cfg.Book.Config().Fence[node])
	d.mu.Lock()
	defer d.mu.Unlock()
	if c := d.checks[node]; c.of == of {
		return levels, c, nil
	}
	return levels, check{}, nil
}

// look asks the devices of a node, or is one more that waits for who does. nil: it is being switched off, or what it
// has cannot be read.
func (d *Desk) look(node cluster.NodeID) *look {
	of := string(d.cfg.Book.Config().Fence[node])
	levels, err := d.levels(node)
	if err != nil {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.calls[node] != nil {
		return nil
	}
	if l := d.looks[node]; l != nil {
		return l
	}
	ctx, cancel := context.WithCancel(context.Background())
	l := &look{done: make(chan struct{}), cancel: cancel}
	d.looks[node] = l
	d.cfg.Spawn(func(life context.Context) {
		defer cancel()
		defer context.AfterFunc(life, cancel)()
		c := check{of: of, faults: make(map[string]string)}
		for _, dev := range slices.Concat(levels...) {
			if _, err := d.test(ctx, dev); err != nil {
				c.faults[dev.Name] = err.Error()
			}
		}
		d.mu.Lock()
		delete(d.looks, node)
		before := d.checks[node]
		whole := ctx.Err() == nil // else it was called off, and what it found says nothing of the devices
		if whole {
			d.checks[node] = c
		}
		d.mu.Unlock()
		close(l.done)
		for name, why := range c.faults {
			if whole && (before.of != of || before.faults[name] == "") {
				d.cfg.Logger.Warn("a fence device could not do its work", "node", node, "device", name, "err", why)
			}
		}
	})
	return l
}

// quiet ends a look at the devices of a node that is to be switched off: they take few sessions. It waits for its end,
// which the agents bound. The caller has noted the order, so no other look begins.
func (d *Desk) quiet(ctx context.Context, node cluster.NodeID) {
	d.mu.Lock()
	l := d.looks[node]
	d.mu.Unlock()
	if l == nil {
		return
	}
	l.cancel()
	select {
	case <-l.done:
	case <-ctx.Done():
	}
}

// test looks whether a device could do its work, and whether its node is on.
func (d *Desk) test(ctx context.Context, dev fence.Device) (on bool, err error) {
	if err := d.cfg.Agents.Inspect(ctx, dev); err != nil {
		return false, err
	}
	return d.cfg.Agents.Check(ctx, dev)
}
