package sim

import (
	"cmp"
	"errors"
	"fmt"

	"duet/appmodules/engine"
	"duet/blockrepl/proof"
)

// What scripts say of the proof in the background.

// ledger is what the node that leads says of its volume; false: nothing. It is what the status shows, so the
// scenarios see what an admin sees.
func (n *Node) ledger() (l proof.Ledger, yes bool) {
	if n.proc == nil || n.engine == nil {
		return l, false
	}
	all := n.engine.State().Status.Volumes
	if len(all) == 0 || all[0].Proof == nil {
		return l, false
	}
	return all[0].Proof.Ledger, true
}

// proven waits until all of the volume was found the same from now on: proven NODE within D. By the clock of N,
// whose daemon must run.
func (n *Node) proven(a []string) error {
	d, err := within(append([]string{n.name}, a...))
	if err != nil {
		return err
	}
	if n.proc == nil {
		return errors.New("its daemon does not run")
	}
	now := n.proc.Now().Round(0)
	if !n.c.until(d, func() bool { l, yes := n.ledger(); return yes && l.Oldest().After(now) }) {
		l, _ := n.ledger()
		return fmt.Errorf("the oldest part was proven at %v, and it is %v: %+v", l.Oldest(), now, l)
	}
	return nil
}

// finds waits until a place differs and the copy that changed is named, or nobody: finds NODE SIDE within D.
func (n *Node) finds(a []string) error {
	if len(a) == 0 {
		return errors.New("which side has changed is missing")
	}
	d, err := within(a)
	if err != nil {
		return err
	}
	told := func() bool {
		l, yes := n.ledger()
		return yes && len(l.Open) == 1 && l.Open[0].Differs() && cmp.Or(l.Open[0].Changed, "nobody") == a[0] && n.alarmed()
	}
	if !n.c.until(d, told) {
		l, _ := n.ledger()
		return fmt.Errorf("known to differ: %+v", l.Open)
	}
	return nil
}

// alarmed: the status has the alarm.
func (n *Node) alarmed() bool {
	for _, notice := range n.engine.State().Status.Notices {
		if notice.Code == engine.CopiesDiffer && notice.Alarm {
			return true
		}
	}
	return false
}
