package sim

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"duet/blockrepl"
)

// What must hold when a disk is ill.

// harmed: a disk has damaged a block and did not say so. Whoever reads it there gets what lies there, and so
// does who resyncs from it: only a verify can tell. Checks leave such a block out on both nodes, as damage
// spreads by a resync; it ends when a good write has come over it wherever it lies.
func (k *checker) harmed(block int) bool {
	return k.c.nodes[0].disk.isDamaged(block) || k.c.nodes[1].disk.isDamaged(block)
}

// harmed: a disk has damaged a block, or could not read one, at some time.
func (c *Cluster) harmed() bool {
	return c.nodes[0].disk.harmed.Load() || c.nodes[1].disk.harmed.Load()
}

// spares: the VM is not ended for what its guest has not met. It is told before the hypervisor ends one. It
// holds where only-disks says that nothing else goes wrong. A metadata disk that was full when something was to be
// kept, and a log that is torn, may end a VM: the node cannot take part any more.
func (k *checker) spares(n *Node) {
	if k.disks && !n.guest.met && !n.disk.met() && !n.store.met && n.log.damaged == nil {
		k.fail("the VM on %s is ended for a fault that its guest did not meet", n.name)
	}
}

// compare has the primary, wherever it is, do a verify.
func (c *Cluster) compare(a []string) error {
	for _, n := range c.nodes {
		if n.prim != nil && strings.HasPrefix(n.story.shown, "PRIM") {
			return n.verify(append(a, ""))
		}
	}
	return errors.New("there is no primary")
}

// glance begins a verify, if it can; what it finds is nobody's business.
func (c *Cluster) glance([]string) error {
	for _, n := range c.nodes {
		if n.prim != nil && n.proc != nil && !n.proc.frozen {
			_ = n.prim.Verify(false)
		}
	}
	return nil
}

// verify has the pair compared: every block in which the copies differ is named, and no other. With repair they
// are the same afterwards. What differs is taken before, so blocks that the guest writes meanwhile may be left
// out by the verify.
func (n *Node) verify(a []string) error {
	if n.prim == nil {
		return errors.New("it is not primary")
	}
	want := n.c.differing()
	n.verified = nil
	if err := n.prim.Verify(a[0] == "repair"); err != nil {
		return err
	}
	switch n.c.until(time.Minute, func() bool { return n.verified != nil }); {
	case n.verified == nil:
		return errors.New("it does not end")
	case n.verified.Err != nil:
		return n.verified.Err
	}
	var named []int
	for _, off := range n.verified.Differs {
		there := func(at int64) bool { return at/blockrepl.RegionSize == off/blockrepl.RegionSize }
		named = append(named, slices.IndexFunc(places(), there))
	}
	slices.Sort(named)
	// What the guest wrote meanwhile was made good by that.
	still := n.c.differing()
	want = slices.DeleteFunc(want, func(b int) bool { return !slices.Contains(named, b) && !slices.Contains(still, b) })
	if !slices.Equal(named, want) {
		n.c.check.fail("verify on %s names blocks %v, but %v differ", n.name, named, want)
	}
	return nil
}

// places is where the blocks lie.
func places() (all []int64) {
	for b := range blocks {
		all = append(all, place(b))
	}
	return all
}

// differing are the blocks in which the copies differ, but for what the guest is writing.
func (c *Cluster) differing() []int {
	return slices.DeleteFunc(differing(&c.nodes[0].disk, &c.nodes[1].disk), func(b int) bool {
		return c.nodes[0].guest.writes(b) || c.nodes[1].guest.writes(b)
	})
}

// differs waits until the copies differ in a block that no guest is writing: differs BLOCK within D.
func (c *Cluster) differs(a []string) error {
	b, err := blockOf(a[0])
	if err != nil {
		return err
	}
	d, err := within(a)
	if err != nil {
		return err
	}
	if !c.until(d, func() bool { return slices.Contains(c.differing(), b) }) {
		return errors.New("it does not")
	}
	return nil
}

// same: the copies hold the same.
func (c *Cluster) same([]string) error {
	if d := c.differing(); len(d) > 0 {
		return fmt.Errorf("blocks %v differ", d)
	}
	return nil
}

// truncate takes the second half of the image away, until it is mended. Reads and writes there fail; flushes do
// not, and nothing is forgotten.
func (d *disk) truncate() {
	d.harmed.Store(true)
	d.mu.Lock()
	defer d.mu.Unlock()
	for b := blocks / 2; b < blocks; b++ {
		for row := range 2 {
			d.ill.ailments[row][b].err = errBeyond
		}
	}
}

var errBeyond = errors.New("unexpected end of file")
