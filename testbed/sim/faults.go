package sim

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"duet/appmodules"
	"duet/vmmanager"
)

// The lines of a script that make something happen.

// reachable: without words all is healed. A cut of data to the witness means nothing.
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

// errTorn is what a dirty log says that cannot be read.
var errTorn = errors.New("dirty log: checksum mismatch")

// setDisk: a failed disk takes the promise of unflushed writes with it if the other copy is not good: that is
// the second failure at a time, which nothing covers.
func (n *Node) setDisk(a []string) (err error) {
	switch a[0] {
	case "fail":
		n.c.check.powerCut(n) // a disk that fails while the other copy is not good is a second failure
		n.disk.setFail(errors.New("input/output error"))
	case "ok":
		n.disk.mend()
	case "full":
		n.store.full = true
	case "free":
		n.store.full = false
	case "slow":
		var each time.Duration
		each, err = time.ParseDuration(a[1])
		n.disk.setSlow(each)
	case "reads", "writes", "flushes", "all":
		err = n.disk.sicken(a)
	case "loses", "strays", "rots":
		err = n.disk.silently(a[0], a[1])
	case "truncated":
		n.disk.truncate()
	case "torn":
		n.log.damaged = errTorn
	case "whole":
		n.log.damaged = nil
	default:
		err = fmt.Errorf("no such state of a disk")
	}
	return err
}

// setClock: it counts from the next boot of daemon or computer on: a clock that jumps under a running daemon is
// not simulated.
func (n *Node) setClock(a []string) (err error) {
	n.skew, err = time.ParseDuration(a[0])
	return err
}

var operations = map[string]appmodules.Event{
	"start": appmodules.CmdStart, "stop": appmodules.CmdStop, "stop-all": appmodules.CmdStopAll,
	"restart": appmodules.CmdRestart, "swap": appmodules.CmdSwap, "prim": appmodules.CmdPrim,
	"second": appmodules.CmdSecond,
}

func (n *Node) operate(a []string) error {
	ev, ok := operations[a[0]]
	if !ok {
		return fmt.Errorf("no such command of an operator")
	}
	n.command(ev, len(a) > 1 && a[1] == "yes")
	return nil
}

// disturb is trouble that comes from inside the VM.
func (n *Node) disturb(a []string) error {
	switch a[0] {
	case "crash":
		n.guest.report(vmmanager.ByCrash)
	case "panic":
		n.guest.report(vmmanager.ByPanic)
	case "poweroff":
		n.guest.report(vmmanager.ByGuest)
	case "deaf", "obeys":
		n.guest.deaf = a[0] == "deaf"
	case "ill", "well":
		n.guest.ill = a[0] == "ill"
	default:
		return fmt.Errorf("no such trouble of a guest")
	}
	return nil
}
