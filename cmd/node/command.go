package node

import (
	"fmt"

	"duet/appmodules"
)

// command is an operator's command forwarded to the node that has to act. It travels by
// name; the number is what version 1 reads, and its numbers stay.
type command struct {
	Name  string `json:"command,omitempty"`
	Event int    `json:"event"`
	Yes   bool   `json:"yes"`
}

// order is one command that nodes give each other.
type order struct {
	name   string
	number int // in version 1
	event  appmodules.Event
}

// orders are all of them; anything else is no command.
var orders = []order{
	{"start", 1, appmodules.CmdStart}, {"stop", 2, appmodules.CmdStop}, {"stop-all", 3, appmodules.CmdStopAll},
	{"restart", 4, appmodules.CmdRestart}, {"swap", 5, appmodules.CmdSwap}, {"prim", 6, appmodules.CmdPrim},
	{"second", 7, appmodules.CmdSecond},
}

func newCommand(ev appmodules.Event, yes bool) command {
	for _, o := range orders {
		if o.event == ev {
			return command{o.name, o.number, yes}
		}
	}
	panic(fmt.Sprintf("%v is no command", ev)) // a mistake of the caller, on any node
}

func (c command) order() (order, bool) {
	for _, o := range orders {
		if o.name == c.Name || c.Name == "" && o.number == c.Event {
			return o, true
		}
	}
	return order{}, false
}

// Check refuses what is no command.
func (c command) Check() error {
	if _, ok := c.order(); !ok {
		return fmt.Errorf("no command %q (%d)", c.Name, c.Event)
	}
	return nil
}

// event is the command of a request that was checked.
func (c command) event() appmodules.Event {
	o, _ := c.order()
	return o.event
}
