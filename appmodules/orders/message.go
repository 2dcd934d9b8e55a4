package orders

import (
	"fmt"

	"duet/appmodules"
)

// Message is an operator's command forwarded to the node that has to act. It travels by
// name; the number is what version 1 reads, and its numbers stay.
type Message struct {
	Name  string `json:"command,omitempty"` // empty: of version 1
	Event int    `json:"event"`             // order.number, which is not that of the appmodules.Event here
	Yes   bool   `json:"yes"`               // the operator has confirmed what may give up data
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

// NewMessage is the one for a command, which ev has to be: other events are not for a network to bring.
func NewMessage(ev appmodules.Event, yes bool) Message {
	for _, o := range orders {
		if o.event == ev {
			return Message{o.name, o.number, yes}
		}
	}
	panic(fmt.Sprintf("%v is no command", ev)) // a mistake of the caller, on any node
}

// known is the order of a message. Numbers count only where there is no name: those of a newer release may be others.
func (c Message) known() (order, bool) {
	for _, o := range orders {
		if o.name == c.Name || c.Name == "" && o.number == c.Event {
			return o, true
		}
	}
	return order{}, false
}

// Check refuses what is no command, before anything is done with a request: of a newer release it may be one that this
// node does not know.
func (c Message) Check() error {
	if _, ok := c.known(); !ok {
		return fmt.Errorf("no command %q (%d)", c.Name, c.Event)
	}
	return nil
}

// Order is the command of a request that was checked. Without Check it would be the Event 0, which is no command.
func (c Message) Order() appmodules.Event {
	o, _ := c.known()
	return o.event
}
