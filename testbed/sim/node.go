package sim

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"duet/appmodules"
	"duet/appmodules/engine"
	"duet/appmodules/workload"
	"duet/blockrepl"
	"duet/cluster"
	"duet/vmmanager"
)

// Node is one computer. Its parts are apart by what ends them: daemon with the daemon's life, power with the
// computer's; store, disk, log and kept survive both, but for what was not flushed. What is embedded goes as a
// whole by assignment of a zero value, so that a field that is added cannot survive what ends it.
type Node struct {
	c    *Cluster
	id   int
	name string

	daemon
	power
	exit  exit
	story story
	ear   hearing
	vms   vms

	store    store
	disk     disk
	log      dirtyLog
	kept     [][blocks]uint64 // versions that were set aside
	guest    guest
	pipes    []*end                // of replication; emptied when the daemon or the computer ends
	verified *blockrepl.VerifyDone // what the last verify found
	ping     bool                  // its ping target answers (rule 3d)
	skew     time.Duration         // of the clock, from the next boot on
	answer   error                 // to the last command that was refused
}

// daemon is what lives as long as one process of it: all of it goes at once, with end.
type daemon struct {
	proc   *process // nil: it does not run
	engine *engine.Engine
	vm     *workload.VM
	second *secondary     // of the model
	intact bool           // of the model: as engine.NewStorage has it, of a volume that is closed
	real   *real          // the byte path; nil: it is the model's
	prim   engine.Primary // the newest that was opened
}

// power is what the computer's own life leaves behind.
type power struct {
	on        bool     // under power
	host      *process // its life since power came, in which the guest runs
	boots     int      // losses of power, as the kernel's boot id would tell them apart
	lostPower bool     // and no engine was started since, that would know
	cold      bool     // it lost power, and its copy was not completed since
}

// exit is an orderly end of the daemon. The peer remembers that it was told until the next start.
type exit struct{ begun, told bool }

// vms is how VMs start here.
type vms struct {
	takes     time.Duration // at least
	fail      bool          // the hypervisor starts nothing
	forbidden bool          // the VM must not start here: an expectation of a script
}

// boot starts the daemon, and the computer if it is off. It changes nothing of what is durable. The engine is
// made as appmodules/mirror makes it, with the same default times; only its surroundings are ours. If it cannot
// be made the node stays without a daemon, as when a unit fails, and a later boot tries again.
func (n *Node) boot() {
	if !n.on {
		n.on = true
		n.host = &process{w: n.c.w, skew: n.skew}
	}
	if n.proc != nil {
		return
	}
	p := &process{w: n.c.w, skew: n.skew, frozen: n.host.frozen}
	p.spins = func() { n.c.check.fail("the daemon on %s spins", n.name) }
	n.daemon, n.exit, n.story.phase = daemon{proc: p}, exit{}, appmodules.Stopped
	if n.c.w.live != nil {
		p.gate = newGate(p.frozen)
		n.real = newReal(n, p)
	}
	other := cluster.NodeID(names[1-n.id])
	vm := workload.NewVM(workload.VMConfig{Module: n.c.module, Node: n.name,
		Hypervisor: hypervisor{vmmanager.Unavailable{Err: vmmanager.ErrUnavailable}, n},
		Logger:     slog.New(slog.DiscardHandler)})
	e, err := engine.New(engine.Config{
		Module: n.c.module, Self: cluster.NodeID(n.name), Peer: peer{n}, Store: &n.store, Storage: n.storage(),
		Workload: vm, Gate: engine.NewGate(p), Runtime: p,
		View: func() cluster.View { return n.view(other) }, Witnesses: n.witnesses, Fence: n.fencer(),
		Ping: func(context.Context) bool { return n.ping }, Boot: fmt.Sprint(n.boots),
		Log: func(t engine.Transition) { n.c.transition(n, t) }, Logger: slog.New(slog.DiscardHandler),
		Times: engine.DefaultTimes(detection),
	})
	if err != nil {
		n.c.note("%s: the daemon does not start: %v", n.name, err)
		n.proc, n.real = nil, nil
		return
	}
	n.engine, n.vm = e, vm
	n.show(e.State().Status)
	p.w.at(0, p, func() {
		e.Start()
		n.lostPower = false // the engine knows
	})
	n.c.touch()
}

// storage is the byte path. The engine cannot tell the two apart, which is what makes the same scenarios judge
// both.
func (n *Node) storage() engine.Storage {
	if n.real != nil {
		return n.real
	}
	return storage{n}
}

// kill ends the daemon between two instructions; the VM goes on and waits for its disk. The page cache survives
// it: nothing written is lost (cluster/DESIGN.md, "Two words beside the epochs"). Its connections are ended by
// the kernel, after what was under way in them.
func (n *Node) kill() {
	if n.proc == nil {
		return
	}
	n.end()
	n.sever()
	n.c.touch()
}

// end is what kill and powerCut have in common, and the end of a run: no task of the daemon and no commit of its
// log outlives it, and its live goroutines reach nothing any more (bury). Commits under way become durable from
// the first on, as many as chance wants.
func (n *Node) end() {
	if n.proc == nil {
		return
	}
	if n.engine != nil && n.engine.State().Record.Cold && !n.record().Cold {
		n.lostPower = true // it could not save that it did
	}
	n.proc.kill()
	n.disk.wakeDead()
	if n.real != nil {
		n.real.bury()
	}
	n.log.crash(n.c.w.rng)
	if n.c.broken == cleanLog {
		n.log.suspects = [blocks]bool{}
	}
	n.daemon, n.story.shown = daemon{}, off
	n.guest.front, n.guest.sent = nil, nil
}

// stopping: the daemon ends in order.
func (n *Node) stopping() bool { return n.exit.begun && n.proc != nil }

// stop ends the daemon in order; down: because the whole computer goes down, and does so
// at once afterwards, before anything else reaches its disks.
func (n *Node) stop(down bool) {
	p, e := n.proc, n.engine
	if p == nil || p.frozen {
		return
	}
	n.exit.begun = true
	p.start(func() {
		if down {
			evacuation, cancel := p.WithTimeout(context.Background(), 100*time.Second)
			e.Evacuate(evacuation)
			cancel()
		}
		n.exit.told = true
		ctx, cancel := p.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		e.Stop(ctx)
		n.c.w.at(0, nil, func() {
			switch {
			case n.proc != p:
			case down:
				n.powerCut()
			default:
				n.kill()
			}
		})
	})
}

// powerCut ends everything on the computer. The order matters: the checker is told first, because it has to know
// whether the other copy is good while this one still is; then every process ends, and only then does the disk
// forget. The peer hears nothing until its patience is over.
func (n *Node) powerCut() {
	if !n.on {
		return
	}
	n.c.check.powerCut(n)
	n.end()
	n.host.kill()
	for _, e := range n.pipes { // nobody is told
		e.closed, e.lost, e.queue = true, nil, nil
		o := e.other()
		n.c.w.at(patience, nil, func() { o.reset(errTimeout) })
	}
	n.pipes = nil
	n.guest.end(vmmanager.Off)
	n.disk.powerCut(n.c.w.rng)
	n.forget()
	n.on, n.lostPower, n.cold = false, true, true
	n.boots++
	n.c.touch()
}

// forget is power loss of hardware that lies. It is a breach of contract on purpose: TestBroken proves by it
// that the checks would notice.
func (n *Node) forget() {
	switch n.c.broken {
	case forgetfulDisk:
		n.disk.cached[0], n.disk.durable[0] = 0, 0
	case forgetfulStore:
		if n.store.before != nil {
			n.store.values["record"] = n.store.before
		}
	}
}

// freeze stops the daemon, or with it the VM; thaw lets both go on. With all it is a host that hangs, as one
// whose hypervisor stops it: the guest stands still with its daemon. Without it the guest goes on and waits for
// its disk.
func (n *Node) freeze(all bool) {
	if n.proc != nil {
		n.proc.freeze()
	}
	if all && n.host != nil {
		n.host.freeze()
	}
	n.c.touch()
}

func (n *Node) thaw() {
	if n.host != nil && n.host.frozen {
		n.host.thaw()
	}
	if n.proc != nil && n.proc.frozen {
		n.proc.thaw()
	}
	n.c.touch()
}

// diskDelay is what a write takes on a disk that is well.
func (n *Node) diskDelay() time.Duration {
	if n.c.broken == sleepyDisk && n.c.w.rng.IntN(50) == 0 {
		return 1500 * time.Millisecond
	}
	return n.c.w.jitter(200 * time.Microsecond)
}
