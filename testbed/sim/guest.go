package sim

import (
	"context"
	"errors"
	"time"

	"duet/blockrepl"
	"duet/vmmanager"
)

// guest is the VM on one node: it checks every block when it boots, then writes one after the other, with a
// flush now and then. Requests that are not answered are sent again when the volume is served anew, as QEMU
// does. One request is under way at a time, and every write has a value that no other has, growing: so a read
// that returns less than was acknowledged is a loss, without any search for an order. Kinder than a real guest:
// no request covers more than a block, and none is a discard.
type guest struct {
	n     *Node
	state vmmanager.State // what the hypervisor would say
	life  int             // counts starts; what an earlier life waited for is not its business
	front front           // nil: nobody serves the volume here

	op   *request // under way
	next func()   // when it has ended
	sent *request // what was submitted for op; an answer to an earlier one is not for it any more
	done int      // operations of this life
	deaf bool     // ignores a request to shut down
	ill  bool     // panics as soon as it has started
	met  bool     // its disk answered with an error in this life
}

// front is a volume as the guest sees it. It is the model's primary or the door of the real byte path.
type front interface {
	life() *process // of the daemon that serves it
	submit(r *request)
}

// boot begins a life: first every block is read. It is where lost writes are found: a VM that starts elsewhere
// reads everything before it writes.
func (g *guest) boot() {
	g.life++
	g.state, g.op, g.sent, g.done, g.met = vmmanager.Running, nil, nil, 0, false
	if life := g.life; g.ill {
		g.n.c.w.at(time.Millisecond, g.n.host, func() {
			if g.life == life {
				g.report(vmmanager.ByPanic)
			}
		})
	}
	g.read(0)
}

// end ends a life, however it comes to that; nothing that was under way in it is answered.
func (g *guest) end(state vmmanager.State) {
	g.n.c.check.begins() // to be down is a pause
	g.life++
	g.state, g.op, g.sent = state, nil, nil
}

// read looks at one block after the other, then begins to write.
func (g *guest) read(block int) {
	r := &request{op: blockrepl.OpRead, block: block}
	g.do(r, func() {
		g.n.c.check.answered()
		g.n.c.check.read(g.n, r)
		if block+1 < blocks {
			g.read(block + 1)
			return
		}
		g.write()
	})
}

func (g *guest) write() {
	c := g.n.c
	c.check.begins()
	c.check.value++
	r := &request{op: blockrepl.OpWrite, block: c.w.rng.IntN(blocks), value: c.check.value}
	switch {
	case c.busy > 0:
		r.block = c.busy
	case r.block == c.avoided:
		r.block = 0
	}
	g.do(r, func() {
		g.done++
		if c.w.rng.IntN(6) == 0 {
			g.flush()
			return
		}
		g.later(g.write)
	})
}

// flush: what it promises is what was acknowledged when it was sent, so promised is taken before.
func (g *guest) flush() {
	promised := g.n.c.check.acked
	g.n.c.check.begins()
	g.do(&request{op: blockrepl.OpFlush}, func() {
		g.n.c.check.answered()
		g.n.c.check.flush(promised)
		g.later(g.write)
	})
}

// later is the guest thinking: longer when nothing has happened for a while, which
// makes long quiet times cheap.
func (g *guest) later(fn func()) {
	life, c := g.life, g.n.c
	think := 5*time.Millisecond + c.w.jitter(30*time.Millisecond)
	if c.w.now-c.stirred > int64(2*time.Second) {
		think *= 4
	}
	c.w.quiet(think, g.n.host, func() {
		if g.life == life {
			fn()
		}
	})
}

// do submits op now or when the volume is served.
func (g *guest) do(op *request, next func()) {
	g.op, g.next = op, next
	g.submit()
}

// submit: an error that reaches it is a violation, unless its own disk is ill and nobody else has the data: then
// the hypervisor pauses the VM (error_policy stop). ErrClosed is none: QEMU connects again and submits it anew.
func (g *guest) submit() {
	if g.front == nil || g.op == nil || g.state != vmmanager.Running { // one that is paused sends nothing
		return
	}
	op, next := g.op, g.next
	r := &request{op: op.op, block: op.block, value: op.value}
	ailed := g.n.disk.ails() // it may be well again when the peer, asked in its place, is lost
	r.done = func(err error) {
		if g.sent != r || errors.Is(err, blockrepl.ErrClosed) {
			return
		}
		if err != nil && g.n.c.settled() && g.n.c.helps(g.n) {
			g.n.c.check.fail("the guest on %s got an error although the peer has what it asked for: %v", g.n.name, err)
			return
		}
		if err != nil && (ailed || g.n.disk.ails()) { // nobody else has it: it is the guest's own trouble
			g.met = true
			g.pauses()
			return
		}
		if err != nil {
			g.n.c.check.fail("the guest on %s got an error: %v", g.n.name, err)
			return
		}
		op.value, op.epoch = r.value, r.epoch
		g.op, g.sent = nil, nil
		g.n.c.w.quiet(0, g.n.host, func() {
			if g.op == nil && g.state == vmmanager.Running {
				next()
			}
		})
	}
	g.sent = r
	front := g.front
	g.n.c.w.in(front.life(), func() { front.submit(r) })
}

// pauses is what the hypervisor does with a VM whose disk answers with an error. The request is not answered: it
// is submitted anew when the VM goes on. The event may reach a daemon that knows it already, or none.
func (g *guest) pauses() {
	g.sent = nil
	g.state = vmmanager.IOError
	life := g.life
	g.n.c.w.at(time.Millisecond, g.n.host, func() {
		if g.life != life || g.state != vmmanager.IOError || g.n.engine == nil {
			return
		}
		vm := g.n.vm
		g.n.c.w.at(0, g.n.proc, func() {
			vm.Event(vmmanager.Event{VM: "vm", State: vmmanager.IOError, Cause: vmmanager.ByIOError})
		})
	})
}

// served: f serves the volume on this node.
func (g *guest) served(f front) {
	g.front = f
	g.submit()
}

// closed: it does no more.
func (g *guest) closed(f front) {
	if g.front == f {
		g.front, g.sent = nil, nil
	}
}

// hypervisor is the engine's view of the guest. It belongs to one node and does not know the other's VM, so two
// can run at a time: only the checker sees that. Calls are made by tasks of the daemon and end with it, but a VM
// that has started goes on.
type hypervisor struct {
	vmmanager.Unavailable
	n *Node
}

// State tells what the VM does.
func (h hypervisor) State(context.Context, string) (vmmanager.State, error) {
	return h.n.guest.state, nil
}

// Define accepts every definition.
func (h hypervisor) Define(context.Context, vmmanager.Definition) error { return nil }

// Definition is always the same.
func (h hypervisor) Definition(context.Context, string) (vmmanager.Definition, error) {
	return vmmanager.Definition{Name: "vm", Text: []byte("vm")}, nil
}

// Start takes a while. The VM may run before Start returns, and a daemon that is killed between never learns
// that it has started it.
func (h hypervisor) Start(ctx context.Context, _ string) error {
	g := &h.n.guest
	switch g.state {
	case vmmanager.Running:
		return nil
	case vmmanager.IOError:
		g.state = vmmanager.Running
		g.submit()
		return nil
	}
	life := h.n.proc
	if err := life.sleep(ctx, h.n.vms.takes+h.n.c.w.jitter(h.n.vms.takes)); err != nil {
		return err
	}
	if h.n.vms.fail {
		return errors.New("the hypervisor does not start it")
	}
	if g.state != vmmanager.Running {
		h.n.c.note("%s: the VM starts", h.n.name)
		if h.n.vms.forbidden {
			h.n.c.check.fail("the VM starts on %s", h.n.name)
		}
		g.boot()
		return life.sleep(ctx, h.n.vms.takes/10) // it runs before the hypervisor says so
	}
	return nil
}

// Shutdown asks the guest. A deaf guest lets it wait until ctx ends, or until it obeys.
func (h hypervisor) Shutdown(ctx context.Context, _ string) error {
	g := &h.n.guest
	life := g.life
	if err := h.n.proc.waitFor(ctx, func() bool { return !g.deaf || g.life != life }); err != nil {
		return err
	}
	if err := h.n.proc.sleep(ctx, 200*time.Millisecond); err != nil {
		return err
	}
	if g.life == life {
		g.end(vmmanager.Off)
	}
	return nil
}

// Kill ends the VM. A VM that stubbornGuest keeps alive is one that a hypervisor says it has ended.
func (h hypervisor) Kill(ctx context.Context, _ string) error {
	if g := &h.n.guest; g.state != vmmanager.Off && h.n.c.broken != stubbornGuest {
		h.n.c.check.spares(h.n)
		life := h.n.proc
		if err := life.sleep(ctx, h.n.vms.takes/10); err != nil {
			return err
		}
		if g.state != vmmanager.Off { // not by itself meanwhile
			h.n.c.note("%s: the VM is ended", h.n.name)
			g.end(vmmanager.Off)
		}
	}
	return nil
}

// report is what the hypervisor tells of a VM that ended by itself.
func (g *guest) report(cause vmmanager.Cause) {
	if g.state != vmmanager.Running && g.state != vmmanager.IOError {
		return
	}
	g.end(vmmanager.Off)
	if vm, p := g.n.vm, g.n.proc; g.n.engine != nil {
		g.n.c.w.at(time.Millisecond, p, func() { vm.Event(vmmanager.Event{VM: "vm", State: vmmanager.Off, Cause: cause}) })
	}
}
