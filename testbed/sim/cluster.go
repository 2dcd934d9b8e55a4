package sim

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"duet/appmodules"
	"duet/appmodules/engine"
	"duet/blockrepl"
	"duet/cluster"
	"duet/vmmanager"
)

// Cluster is two nodes, a witness and one module, on a clock of their own. All of it belongs to the goroutine of
// the world. What a `set` line changes of the policy after start reaches an engine at the next boot of its
// daemon only, as an engine is given a copy of the module.
type Cluster struct {
	w       *world
	net     network
	nodes   [2]*Node
	witness witness
	module  appmodules.Module
	proves  bool    // volumes are proven in the background
	fence   bool    // both nodes have a fence agent
	check   checker // sees everything, as no node can
	broken  broken  // which contract is not kept; 0: all are
	avoided int     // block that the guest does not write any more; 0: none
	busy    int     // the only one that it writes; 0: all
	cover   *coverage
	stirred int64            // when something last happened besides the guest's work
	out     *strings.Builder // the transcript; nil: none is kept
}

// names of the places.
var names = [...]string{"alpha", "beta", "witness"}

// witnessName is its place.
const witnessName = 2

// newCluster makes a cluster that is switched off. keep says whether a transcript is wanted. Alpha has the
// module first: epoch 1 is its, and its copy is complete; beta begins without data, as after a protect. A volume
// has eight blocks for the model, and as many bytes as production needs for the real byte path.
func newCluster(seed uint64, keep bool, live *live) *Cluster {
	c := &Cluster{w: &world{rng: rand.New(rand.NewPCG(seed, 0)), live: live}}
	c.check.c = c
	if keep {
		c.out = &strings.Builder{}
	}
	m := appmodules.Default()
	m.Name, m.Nodes = "vm", []string{names[0], names[1]}
	size := int64(blocks)
	if live != nil {
		size = volumeSize
	}
	m.Spec = appmodules.VM{Domain: "vm",
		Disks: []appmodules.Volume{{Target: "vda", ID: "vol", Size: size, Paths: map[string]string{}}}}
	c.module = m
	for i := range c.nodes {
		n := &Node{
			c: c, id: i, name: names[i], ping: true, vms: vms{takes: 100 * time.Millisecond},
			store: store{values: map[string][]byte{}, owner: cluster.NodeID(names[i])},
		}
		n.guest, n.story.shown = guest{n: n, state: vmmanager.Off}, off
		n.store.grant = func() { c.check.granted(n) }
		n.log.entries = map[uint32]blockrepl.Entry{}
		n.log.lineage = blockrepl.Lineage{Volume: "vol"}
		if i == 0 {
			n.log.lineage = n.log.lineage.With(blockrepl.Generation{Epoch: 1, Holder: names[0]})
		}
		if err := engine.Create(&n.store, cluster.NodeID(n.name), cluster.NodeID(names[0]),
			engine.Definition{Version: 1, Text: []byte("vm")}, ""); err != nil {
			panic(err) // a store in memory that is not full
		}
		n.disk.ill.changed.L = &n.disk.mu
		c.nodes[i] = n
	}
	return c
}

// note adds a line to the transcript.
func (c *Cluster) note(format string, args ...any) {
	if c.out != nil {
		fmt.Fprintf(c.out, "%9.3fs  %s\n", time.Duration(c.w.now).Seconds(), fmt.Sprintf(format, args...))
	}
}

// witness is the third voter: its record is durable before it answers. Kinder than a real one: it never loses
// its memory and has no spares, and what it answers takes no time. Off means that nothing comes back, as from a
// computer that is down.
type witness struct {
	used, on bool
	record   cluster.Record
}

// voter is the witness as one node reaches it. It is an engine.Witness.
type voter struct{ n *Node }

// Name is the witness's.
func (v voter) Name() string { return names[witnessName] }

// Ask asks for its vote. It follows cluster.Record.Vote, the code of production, so a vote that comes twice or
// late is judged as there (rule 5). A question may arrive again up to three seconds later, and is voted on
// again; whichever answer comes first counts.
func (v voter) Ask(ctx context.Context, a cluster.Ask) (ans cluster.Answer, err error) {
	c, n, life := v.n.c, v.n, v.n.proc
	answered := make(chan struct{})
	vote := func() {
		if !c.witness.on {
			return
		}
		var said cluster.Answer
		if c.broken == generousWitness {
			c.witness.record = cluster.Record{}
		}
		c.witness.record, said = c.witness.record.Vote(cluster.NodeID(names[witnessName]), a)
		c.send(control, witnessName, n.id, func() {
			c.w.in(life, func() {
				if !closed(answered) {
					ans = said
					close(answered)
					life.wake()
				}
			})
		})
	}
	c.send(control, n.id, witnessName, vote)
	if c.w.rng.Float64() < c.net.again {
		c.w.at(c.w.jitter(3*time.Second), nil, func() { c.send(control, n.id, witnessName, vote) })
	}
	return ans, life.Wait(ctx, answered, nil)
}

func (n *Node) witnesses() []engine.Witness {
	if !n.c.witness.used {
		return nil
	}
	return []engine.Witness{voter{n}}
}

// fencer switches the other computer off by a path of its own. It takes a second, needs no network and confirms
// only what has happened, as rule 3c asks for; kinder than real agents, it never fails and never lies, but for
// deafFence.
func (n *Node) fencer() func(context.Context) error {
	if !n.c.fence {
		return nil
	}
	return func(ctx context.Context) error {
		if err := n.proc.sleep(ctx, time.Second); err != nil {
			return err
		}
		over := false
		life := n.proc
		if n.c.broken == deafFence {
			return nil
		}
		n.c.w.at(0, nil, func() {
			n.c.note("%s: the fence agent switches %s off", n.name, names[1-n.id])
			n.c.nodes[1-n.id].powerCut()
			n.c.w.at(0, life, func() { over = true })
		})
		return life.waitFor(ctx, func() bool { return over })
	}
}

// command gives the module on n an operator's command. It is given on a node whose daemon answers, and does
// nothing otherwise: the line of the script is then in vain, and no refusal of it will come. A refusal is kept for
// `refused` until the next command here, one in vain included.
func (n *Node) command(ev appmodules.Event, yes bool) {
	n.answer = nil
	e, p := n.engine, n.proc
	if e == nil || p.frozen {
		return
	}
	p.start(func() {
		if ev == appmodules.CmdPrim {
			n.c.check.overridden(n)
		}
		err := e.Command(context.Background(), ev, yes)
		if err != nil && !errors.Is(err, context.Canceled) {
			n.answer = err
			n.c.note("%s: %v", n.name, err)
		}
	})
	p.poll()
}

// helps: what n cannot read the other node can give it: its disk is well, it is awake and closes nothing, and what is
// asked and answered arrives, and so soon that nobody takes the peer for lost meanwhile: messages queue.
func (c *Cluster) helps(n *Node) bool {
	peer := c.nodes[1-n.id]
	if 4*c.net.delay[data] >= time.Duration(c.module.Policy.StallBudget) {
		return false
	}
	awake := peer.answers() && !peer.exit.told && peer.host != nil && !peer.host.frozen
	return awake && !peer.disk.ails() && c.passes(data, n.id, peer.id) && c.passes(data, peer.id, n.id)
}

// settled: one node is primary, the other in step. It is what both nodes show. It says nothing of the content:
// checker.same looks at that.
func (c *Cluster) settled() bool {
	a, b := c.nodes[0].story.shown, c.nodes[1].story.shown
	return (a == "PRIM/Ready" && b == "SECOND/Ready") || (b == "PRIM/Ready" && a == "SECOND/Ready")
}
