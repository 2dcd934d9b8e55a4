package sim

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"duet/appmodules"
	"duet/vmmanager"
)

// A script is a list of lines, done one after the other:
//
//	set POLICY VALUE                 before start: arbitration, failback, cold_start, witness, fence, primary
//	start                            both nodes, the module, until the pair is in step
//	wait D                           let time pass
//	power-cut N · power-on N         everything on a computer
//	kill N · boot N · stop N         its daemon: SIGKILL, start, orderly stop
//	freeze N · freeze-host N · thaw N
//	cut WIRE A>B|A-B · heal [WIRE A>B|A-B]   control, data or all; places alpha, beta, witness
//	delay WIRE D · drop P · repeat P
//	disk N fail|ok|full|free|slow D  image or metadata
//	witness off|on
//	ping N off|on · clock N ±D · start-fails N on|off
//	command N start|stop|stop-all|restart|swap|prim [yes]
//	guest N crash|panic|poweroff|deaf
//	mark · pause below D             the longest time without an acknowledgement
//	expect N ROLE/STATUS within D
//	why N TEXT                       the reason shown contains it
//	settle within D                  PRIM and SECOND, and the guest writes
//	never N VM                       the VM does not run on N
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

// Run does a script with a seed and returns the transcript, and the violation or the
// expectation that was not met.
func (s script) run(seed uint64, keep bool) (transcript string, err error) {
	c := newCluster(seed, keep)
	defer c.close()
	for _, line := range s {
		if c.out != nil && !strings.HasPrefix(line, "wait") {
			c.note("— %s", line)
		}
		if err = c.do(strings.Fields(line)); err != nil {
			err = fmt.Errorf("%s: %w", line, err)
			break
		}
		for _, n := range c.nodes {
			if n.proc != nil && n.proc.spins {
				c.check.fail("the daemon on %s spins", n.name)
			}
		}
		if c.check.problem != "" {
			err = fmt.Errorf("%s", c.check.problem)
			break
		}
	}
	if c.out != nil {
		transcript = c.out.String()
	}
	return transcript, err
}

// close ends every task, so that nothing is left behind.
func (c *Cluster) close() {
	for _, n := range c.nodes {
		n.end()
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
	"stop":        onNode(func(n *Node, _ []string) error { n.stop(); return nil }),
	"freeze":      onNode(func(n *Node, _ []string) error { n.freeze(false); return nil }),
	"freeze-host": onNode(func(n *Node, _ []string) error { n.freeze(true); return nil }),
	"thaw":        onNode(func(n *Node, _ []string) error { n.thaw(); return nil }),
	"cut":         {2, func(c *Cluster, a []string) error { return c.reachable(a, true) }},
	"heal":        {0, func(c *Cluster, a []string) error { return c.reachable(a, false) }},
	"delay":       {2, (*Cluster).setDelay},
	"drop":        {1, func(c *Cluster, a []string) (err error) { c.net.drop, err = strconv.ParseFloat(a[0], 64); return err }},
	"repeat":      {1, func(c *Cluster, a []string) (err error) { c.net.again, err = strconv.ParseFloat(a[0], 64); return err }},
	"disk":        onNode((*Node).setDisk),
	"witness":     {1, func(c *Cluster, a []string) error { c.witness.on = a[0] == "on"; return nil }},
	"ping":        onNode(func(n *Node, a []string) error { n.ping = a[0] == "on"; return nil }),
	"start-fails": onNode(func(n *Node, a []string) error { n.noStart = a[0] == "on"; return nil }),
	"clock":       onNode((*Node).setClock),
	"command":     onNode((*Node).operate),
	"guest":       onNode((*Node).disturb),
	"mark":        {0, func(c *Cluster, _ []string) error { c.check.mark(); return nil }},
	"pause":       {2, (*Cluster).paused},
	"expect":      onNode((*Node).expect),
	"why":         onNode((*Node).explains),
	"settle":      {2, func(c *Cluster, a []string) error { return c.settle(a[1]) }},
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

func (c *Cluster) set(a []string) error {
	p, value := &c.module.Policy, strings.Join(a[1:], " ")
	switch a[0] {
	case "arbitration":
		p.Arbitration = value
	case "failback":
		p.Failback = value
	case "primary":
		p.Primary = value
	case "cold_start":
		return p.ColdStart.UnmarshalText([]byte(value))
	case "split_brain":
		p.SplitBrain = value
	case "witness":
		c.witness.used, c.witness.on = value == "on", value == "on"
	case "fence":
		c.fence = value != "off"
		if value == appmodules.FenceBeforeStart {
			p.Fence = value
		}
	default:
		return fmt.Errorf("no such setting")
	}
	return nil
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

// until lets time pass until cond, at most for d.
func (c *Cluster) until(d time.Duration, cond func() bool) bool {
	end := c.w.now + int64(d)
	for c.w.now < end {
		if cond() || c.check.problem != "" {
			return true
		}
		c.w.run(min(time.Duration(c.w.now)+10*time.Millisecond, time.Duration(end)), nil)
	}
	return cond()
}

func (c *Cluster) settle(text string) error {
	d, err := time.ParseDuration(text)
	if err != nil {
		return err
	}
	if !c.until(d, c.settled) {
		return fmt.Errorf("alpha is %s, beta is %s", c.nodes[0].role(), c.nodes[1].role())
	}
	before := c.check.value
	if !c.until(5*time.Second, func() bool { return c.check.value > before+uint64(blocks) }) {
		return fmt.Errorf("the guest does not write")
	}
	return nil
}

func (c *Cluster) reachable(a []string, cut bool) error {
	kinds, pairs := []wire{control, data}, [][2]int{{0, 1}, {1, 0}, {0, 2}, {2, 0}, {1, 2}, {2, 1}}
	if len(a) >= 2 {
		switch a[0] {
		case "control":
			kinds = kinds[:1]
		case "data":
			kinds = kinds[1:]
		}
		sep := "-"
		if strings.Contains(a[1], ">") {
			sep = ">"
		}
		from, to, _ := strings.Cut(a[1], sep)
		i, j := slices.Index(names[:], from), slices.Index(names[:], to)
		if i < 0 || j < 0 {
			return fmt.Errorf("no such places")
		}
		pairs = [][2]int{{i, j}}
		if sep == "-" {
			pairs = append(pairs, [2]int{j, i})
		}
	}
	for _, k := range kinds {
		for _, p := range pairs {
			c.net.cut[k][p[0]][p[1]] = cut
		}
	}
	c.touch()
	return nil
}

func (c *Cluster) setDelay(a []string) error {
	d, err := time.ParseDuration(a[1])
	k := control
	if a[0] == "data" {
		k = data
	}
	c.net.delay[k] = d
	return err
}

func (n *Node) setDisk(a []string) (err error) {
	switch a[0] {
	case "fail":
		n.disk.fail = fmt.Errorf("input/output error")
	case "ok":
		n.disk.fail, n.slow = nil, 0
	case "full":
		n.store.full = true
	case "free":
		n.store.full = false
	case "slow":
		n.slow, err = time.ParseDuration(a[1])
	default:
		err = fmt.Errorf("no such state of a disk")
	}
	return err
}

func (n *Node) setClock(a []string) (err error) {
	n.skew, err = time.ParseDuration(a[0])
	for _, p := range []*process{n.host, n.proc} {
		if p != nil {
			p.skew = n.skew
		}
	}
	return err
}

var operations = map[string]appmodules.Event{
	"start": appmodules.CmdStart, "stop": appmodules.CmdStop, "stop-all": appmodules.CmdStopAll,
	"restart": appmodules.CmdRestart, "swap": appmodules.CmdSwap, "prim": appmodules.CmdPrim,
}

func (n *Node) operate(a []string) error {
	ev, ok := operations[a[0]]
	if !ok {
		return fmt.Errorf("no such command of an operator")
	}
	n.command(ev, len(a) > 1 && a[1] == "yes")
	return nil
}

func (n *Node) disturb(a []string) error {
	switch a[0] {
	case "crash":
		n.guest.report(vmmanager.ByCrash)
	case "panic":
		n.guest.report(vmmanager.ByPanic)
	case "poweroff":
		n.guest.report(vmmanager.ByGuest)
	case "deaf":
		n.guest.deaf = true
	default:
		return fmt.Errorf("no such trouble of a guest")
	}
	return nil
}

func (c *Cluster) paused(a []string) error {
	d, err := time.ParseDuration(a[1])
	if err == nil && c.check.longest() >= d {
		err = fmt.Errorf("the guest waited for %v", c.check.longest())
	}
	return err
}

func (n *Node) expect(a []string) error {
	if len(a) < 4 {
		return fmt.Errorf("expect N ROLE/STATUS within D")
	}
	d, err := time.ParseDuration(a[2])
	if err == nil && !n.c.until(d, func() bool { return n.role() == a[0] }) {
		err = fmt.Errorf("it is %s", n.role())
	}
	return err
}

func (n *Node) explains(a []string) error {
	want := strings.TrimSpace(strings.Join(a, " "))
	if n.engine == nil {
		return fmt.Errorf("no daemon runs")
	}
	if why := n.engine.State().Status.Why; !strings.Contains(why, want) {
		return fmt.Errorf("it says %q", why)
	}
	return nil
}
