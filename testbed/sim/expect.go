package sim

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"duet/cluster"
	"duet/vmmanager"
)

// The lines of a script that say what has to be true.

func (c *Cluster) gone(text string) error {
	d, err := time.ParseDuration(text)
	if err == nil && !c.until(d, func() bool { return !c.nodes[0].stopping() && !c.nodes[1].stopping() }) {
		err = errors.New("a daemon does not end")
	}
	return err
}

// settle wants more than the roles: the guest gets on, and the copies hold the same.
func (c *Cluster) settle(text string) error {
	d, err := time.ParseDuration(text)
	if err != nil {
		return err
	}
	if !c.until(d, c.settled) {
		return fmt.Errorf("alpha is %s, beta is %s", c.nodes[0].story.shown, c.nodes[1].story.shown)
	}
	before := c.check.value
	if !c.until(5*time.Second, func() bool { return c.check.value > before+uint64(blocks) }) {
		return fmt.Errorf("the guest does not write")
	}
	c.check.same()
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
	if err == nil && !n.c.until(d, func() bool { return n.story.shown == a[0] }) {
		err = fmt.Errorf("it is %s", n.story.shown)
	}
	return err
}

func (n *Node) explains(a []string) error {
	d, err := within(a)
	if i := slices.Index(a, "within"); i >= 0 {
		a = a[:i]
	}
	want, says := strings.TrimSpace(strings.Join(a, " ")), ""
	is := func() bool {
		if n.engine != nil {
			says = n.engine.State().Status.Why
		}
		return strings.Contains(says, want)
	}
	if err == nil && !n.c.until(d, is) {
		err = fmt.Errorf("it says %q", says)
	}
	return err
}

// refused waits a moment: some commands are answered only when what is about to happen has happened. The answer
// is that to the newest command; one to a node without a daemon has none.
func (n *Node) refused(a []string) error {
	want := strings.TrimSpace(strings.Join(a, " "))
	n.c.until(3*time.Second, func() bool { return n.answer != nil })
	switch {
	case n.answer == nil:
		return errors.New("it was accepted")
	case !strings.Contains(n.answer.Error(), want):
		return fmt.Errorf("the answer was %q", n.answer)
	}
	return nil
}

// within reads "within D" at the end of a line; without it 0.
func within(a []string) (time.Duration, error) {
	if i := slices.Index(a, "within"); i >= 0 && i+1 < len(a) {
		return time.ParseDuration(a[i+1])
	}
	return 0, nil
}

// runs: paused is not running.
func (c *Cluster) runs(a []string) error {
	d, err := within(a)
	if err != nil {
		return err
	}
	is := func() bool {
		for _, n := range c.nodes {
			if (n.guest.state == vmmanager.Running) != (n.name == a[0]) {
				return false
			}
		}
		return true
	}
	if !c.until(d, is) {
		return fmt.Errorf("the VM is %v on alpha and %v on beta", c.nodes[0].guest.state, c.nodes[1].guest.state)
	}
	return nil
}

// holds looks at what nodes and witness keep durably. Voters are looked at, not what engines say: the newest
// epoch is what anybody has durably.
func (n *Node) holds(a []string) error {
	epoch, err := strconv.ParseUint(a[0], 10, 64)
	newest := n.c.witness.record
	for _, o := range n.c.nodes {
		if r := o.record(); r.Epoch > newest.Epoch {
			newest = r
		}
	}
	if err == nil && (newest.Epoch != cluster.Epoch(epoch) || newest.Holder != cluster.NodeID(n.name)) {
		err = fmt.Errorf("it is epoch %d of %s", newest.Epoch, newest.Holder)
	}
	return err
}

func (n *Node) isComplete(a []string) error {
	if r := n.record(); r.IsComplete() != (a[0] == "yes") {
		return fmt.Errorf("its record says %+v", r)
	}
	return nil
}

func (c *Cluster) writes(a []string) error {
	count, err := strconv.ParseUint(a[0], 10, 64)
	d, err2 := within(a)
	if err = errors.Join(err, err2); err != nil {
		return err
	}
	before := c.check.count
	if !c.until(d, func() bool { return c.check.count >= before+count }) {
		return fmt.Errorf("%d writes were acknowledged", c.check.count-before)
	}
	return nil
}

func (c *Cluster) stalls(a []string) error {
	before := c.check.count
	if err := c.pass(a[0]); err != nil {
		return err
	}
	if c.check.count > before {
		return fmt.Errorf("%d writes were acknowledged", c.check.count-before)
	}
	return nil
}
