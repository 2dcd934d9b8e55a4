package sim

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"duet/appmodules"
)

// A script is a list of lines, done one after the other. N is a node, D a duration:
//
//	set POLICY VALUE       before start: arbitration, failback, primary, cold_start, split_brain, frozen, witness,
//	                       fence, crash, panic, shutdown (reactions), patience (of a shutdown), restarts, stall_budget;
//	                       two-writers allowed: what both acknowledge is not compared
//	                       pause (between restarts); proof, proof_repair: of the real byte path only
//	start                  both nodes, the module, until the pair is in step
//	wait D                 let time pass
//	command N start|stop|stop-all|restart|swap|prim|second [yes]
//
// What goes wrong, and ends again:
//
//	power-cut N · power-on N               everything on a computer
//	kill N · boot N · stop N               its daemon: SIGKILL, start, orderly stop
//	shut-down N                            its computer, in order
//	freeze N · freeze-host N · thaw N      its daemon; with it its VM
//	cut WIRE A>B|A-B · heal [WIRE A>B|A-B] control, data or all; places alpha, beta, witness
//	delay WIRE D · drop P · repeat P       D more for each message; a part of the calls
//	disk N fail|ok|full|free|slow D        fail, ok and slow: the image; full and free: the metadata
//	disk N reads|writes|flushes|all fails|hangs|D [BLOCK]   until ok
//	disk N loses|strays|rots BLOCK         the next write to it does not happen, or hits the next block;
//	                                       what it holds changes; in silence
//	avoid BLOCK · busy BLOCK               the guest does not write it any more; writes nothing else; not 0
//	disk N truncated                       the second half of the image is not there, until ok
//	disk N torn|whole                      the dirty log cannot be read, or can again
//	witness off|on · ping N off|on · clock N ±D
//	start-fails N on|off · vm-takes N D    the hypervisor starts nothing; takes so long
//	guest N crash|panic|poweroff|deaf|obeys|ill|well   ill: panics whenever it starts
//
// What has to be true, at once or within D:
//
//	expect N ROLE/STATUS within D
//	why N TEXT [within D]  the reason shown contains it
//	refused N TEXT         the last command was not accepted, and the answer contains it
//	runs N|none [within D] the VM runs on exactly this node
//	never N · may N        from here on the VM must not start on N; it may again
//	holder N EPOCH         the newest epoch that anybody knows is EPOCH of N
//	complete N yes|no      its copy may take over, as far as its own record says
//	writes N within D      the guest gets so many writes acknowledged
//	stalls D               for so long it gets none
//	mark · pause below D   since mark the guest never waited longer for its disk or its VM
//	calm N                 from here on more transitions of one node within a second are a violation
//	verify N [repair]      verify names exactly the blocks that differ; with repair they are mended from N
//	compare [repair]       verify where the primary is; glance begins one and does not look at it
//	same                   the copies hold the same
//	only-disks             from here on no VM may end for a fault that its guest did not meet
//	gone within D          no daemon is being stopped any more
//	settle within D        PRIM and SECOND, and the guest writes
//	differs BLOCK within D the copies differ there, as a disk has seen to it
//	proven N within D      all of it was found the same from now on
//	finds N SIDE within D  one place differs, and SIDE has changed by itself: alpha, beta or nobody
//
// A line that gives N a command while its daemon is dead or frozen does nothing. A word too many is not an
// error. It ends at the first violation or expectation that is not met. Time passes only in lines that wait, so
// lines without one happen at one instant.
type script []string

// parse cuts a text into lines without comments.
func parse(text string) (s script) {
	for _, line := range strings.Split(text, "\n") {
		line, _, _ = strings.Cut(line, "#")
		if line = strings.TrimSpace(line); line != "" {
			s = append(s, line)
		}
	}
	return s
}

// options say how a script is done.
type options struct {
	keep   bool // a transcript
	strict bool // see world
	broken broken
	cover  *coverage     // nil: nobody wants it
	live   *live         // the real byte path; nil: the model
	spent  *atomic.Int64 // virtual time is added to it; nil: nobody wants it
}

// run does a script with a seed and returns the transcript, and the violation or the
// expectation that was not met.
func (s script) run(seed uint64, keep bool) (transcript string, err error) {
	return s.with(seed, options{keep: keep})
}

// with: the error begins with the line, but for a violation, which may be noticed lines after what caused it.
// opt.live must belong to the bubble it is called in.
func (s script) with(seed uint64, opt options) (transcript string, err error) {
	c := newCluster(seed, opt.keep, opt.live)
	c.broken, c.cover, c.w.strict = opt.broken, opt.cover, opt.strict
	defer c.close()
	for _, line := range s {
		if c.out != nil && !strings.HasPrefix(line, "wait") {
			c.note("— %s", line)
		}
		err = c.doLine(line)
		if c.check.problem != "" {
			err = errors.New(c.check.problem)
			break
		}
		if err != nil {
			err = fmt.Errorf("%s: %w", line, err)
			break
		}
	}
	if opt.spent != nil {
		opt.spent.Add(c.w.now)
	}
	if c.out != nil {
		c.nodes[0].story.tellAgain(c.nodes[0])
		c.nodes[1].story.tellAgain(c.nodes[1])
		transcript = c.out.String()
	}
	return transcript, err
}

// close ends every task, so that nothing is left behind. With the real byte path this waits until volumes of
// dead processes are closed, as a bubble may not end before its goroutines.
func (c *Cluster) close() {
	for _, n := range c.nodes {
		n.end()
	}
	c.w.close()
	if c.w.live != nil {
		c.w.live.settle()
		c.w.live.graves.Wait()
		c.w.live.settle()
	}
}

// verb does one kind of line; args has at least as many words as it says.
type verb struct {
	args int
	do   func(c *Cluster, args []string) error
}

var verbs = map[string]verb{
	"set":         {2, (*Cluster).set},
	"start":       {0, (*Cluster).startAll},
	"wait":        {1, func(c *Cluster, a []string) error { return c.pass(a[0]) }},
	"power-cut":   onNode(func(n *Node, _ []string) error { n.powerCut(); return nil }),
	"power-on":    onNode(func(n *Node, _ []string) error { n.boot(); return nil }),
	"kill":        onNode(func(n *Node, _ []string) error { n.kill(); return nil }),
	"boot":        onNode(func(n *Node, _ []string) error { n.boot(); return nil }),
	"stop":        onNode(func(n *Node, _ []string) error { n.stop(false); return nil }),
	"shut-down":   onNode(func(n *Node, _ []string) error { n.stop(true); return nil }),
	"freeze":      onNode(func(n *Node, _ []string) error { n.freeze(false); return nil }),
	"freeze-host": onNode(func(n *Node, _ []string) error { n.freeze(true); return nil }),
	"thaw":        onNode(func(n *Node, _ []string) error { n.thaw(); return nil }),
	"cut":         {2, func(c *Cluster, a []string) error { return c.reachable(a, true) }},
	"heal":        {0, func(c *Cluster, a []string) error { return c.reachable(a, false) }},
	"delay":       {2, (*Cluster).setDelay},
	"drop": {1,
		func(c *Cluster, a []string) (err error) { c.net.drop, err = strconv.ParseFloat(a[0], 64); return err }},
	"repeat": {1,
		func(c *Cluster, a []string) (err error) { c.net.again, err = strconv.ParseFloat(a[0], 64); return err }},
	"disk":        onNode((*Node).setDisk),
	"witness":     {1, func(c *Cluster, a []string) error { c.witness.on = a[0] == "on"; return nil }},
	"ping":        onNode(func(n *Node, a []string) error { n.ping = a[0] == "on"; return nil }),
	"start-fails": onNode(func(n *Node, a []string) error { n.vms.fail = a[0] == "on"; return nil }),
	"vm-takes": onNode(func(n *Node, a []string) (err error) {
		n.vms.takes, err = time.ParseDuration(a[0])
		return err
	}),
	"clock":    onNode((*Node).setClock),
	"command":  onNode((*Node).operate),
	"guest":    onNode((*Node).disturb),
	"mark":     {0, func(c *Cluster, _ []string) error { c.check.mark(); return nil }},
	"pause":    {2, (*Cluster).paused},
	"expect":   onNode((*Node).expect),
	"refused":  onNode((*Node).refused),
	"runs":     {1, (*Cluster).runs},
	"never":    onNode(func(n *Node, _ []string) error { n.vms.forbidden = true; return nil }),
	"may":      onNode(func(n *Node, _ []string) error { n.vms.forbidden = false; return nil }),
	"holder":   onNode((*Node).holds),
	"complete": onNode((*Node).isComplete),
	"writes":   {3, (*Cluster).writes},
	"stalls":   {1, (*Cluster).stalls},
	"busy":     {1, func(c *Cluster, a []string) (err error) { c.busy, err = blockOf(a[0]); return err }},
	"avoid": {1, func(c *Cluster, a []string) (err error) {
		c.avoided, err = blockOf(a[0])
		return err
	}},
	"only-disks": {0, func(c *Cluster, _ []string) error { c.check.disks = true; return nil }},
	"verify":     onNode((*Node).verify),
	"compare":    {0, (*Cluster).compare},
	"glance":     {0, (*Cluster).glance},
	"same":       {0, (*Cluster).same},
	"differs":    {3, (*Cluster).differs},
	"proven":     onNode((*Node).proven),
	"finds":      onNode((*Node).finds),
	"calm":       {1, func(c *Cluster, a []string) (err error) { c.check.calm, err = strconv.Atoi(a[0]); return err }},
	"why":        onNode((*Node).explains),
	"gone":       {2, func(c *Cluster, a []string) error { return c.gone(a[1]) }},
	"settle":     {2, func(c *Cluster, a []string) error { return c.settle(a[1]) }},
}

// doLine: lines change what conditions look at without being events, so every task is asked anew.
func (c *Cluster) doLine(line string) error {
	c.stirred = c.w.now
	c.check.health.line(c.w.now, line)
	err := c.do(strings.Fields(line))
	for _, n := range c.nodes {
		if n.proc != nil {
			n.proc.wake() // whatever it waits for
		}
	}
	c.check.health.look(c)
	return err
}

func (c *Cluster) do(words []string) error {
	v, ok := verbs[words[0]]
	if !ok {
		return fmt.Errorf("no such command")
	}
	if len(words)-1 < v.args {
		return fmt.Errorf("%d more words are needed", v.args-len(words)+1)
	}
	return v.do(c, words[1:])
}

// onNode is a verb whose first word names a node.
func onNode(fn func(n *Node, args []string) error) verb {
	return verb{1, func(c *Cluster, a []string) error {
		i := slices.Index(names[:2], a[0])
		if i < 0 {
			return fmt.Errorf("no node %q", a[0])
		}
		return fn(c.nodes[i], append(a[1:], ""))
	}}
}

func (c *Cluster) set(a []string) (err error) {
	p, value := &c.module.Policy, strings.Join(a[1:], " ")
	switch a[0] {
	case "arbitration":
		p.Arbitration = value
	case "failback":
		p.Failback = value
	case "primary":
		p.Primary = value
	case "cold_start":
		err = p.ColdStart.UnmarshalText([]byte(value))
	case "frozen":
		err = p.Frozen.UnmarshalText([]byte(value))
	case "split_brain":
		p.SplitBrain = value
	case "crash":
		p.On.Crash = appmodules.Reaction(value)
	case "panic":
		p.On.Panic = appmodules.Reaction(value)
	case "shutdown":
		p.On.Shutdown = appmodules.Reaction(value)
	case "restarts":
		p.Restart.Max, err = strconv.Atoi(value)
	case "pause":
		err = p.Restart.Pause.UnmarshalText([]byte(value))
	case "patience":
		err = p.Shutdown.UnmarshalText([]byte(value))
	case "proof": // by the real byte path; without it there is none
		err = p.Proof.UnmarshalText([]byte(value))
		c.proves = true
	case "proof_repair":
		p.ProofRepair = appmodules.ProofRepair(value)
	case "stall_budget":
		err = p.StallBudget.UnmarshalText([]byte(value))
	case "two-writers": // what arbitration available allows where both nodes see the ping target
		c.check.apart = value == "allowed"
	case "witness":
		c.witness.used, c.witness.on = value == "on", value == "on"
	case "fence":
		c.fence = value != "off"
		if value == appmodules.FenceBeforeStart {
			p.Fence = value
		}
	default:
		err = fmt.Errorf("no such setting")
	}
	return err
}

func (c *Cluster) startAll([]string) error {
	for _, n := range c.nodes {
		n.boot()
	}
	c.w.run(time.Duration(c.w.now)+10*time.Millisecond, nil)
	for _, n := range c.nodes {
		n.command(appmodules.CmdStart, false)
	}
	return c.settle("30s")
}

func (c *Cluster) pass(text string) error {
	d, err := time.ParseDuration(text)
	if err != nil {
		return err
	}
	c.w.run(time.Duration(c.w.now)+d, func() bool { return c.check.problem != "" })
	return nil
}

// until lets time pass until cond, at most for d. It also ends at a violation. What it returns is cond at the
// end.
func (c *Cluster) until(d time.Duration, cond func() bool) bool {
	c.w.run(time.Duration(c.w.now)+d, func() bool { return c.check.problem != "" || cond() })
	return cond()
}
