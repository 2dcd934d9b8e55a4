package netns

import (
	"fmt"

	"github.com/vishvananda/netlink"
)

// maxQueue is how long a slow link keeps what it cannot send yet, in milliseconds. Under load every frame waits that
// long; what does not fit is lost.
const maxQueue = 300

// Slow limits what a node receives in a network to some bytes per second, with a queue of 0.3 s. 0 takes it
// back. Reset takes it back too. It is one direction: what the node sends is not slowed. It counts for all its
// peers together.
func (l *LAN) Slow(node, network string, rate uint64) error {
	err := l.with(Switch, func(h *netlink.Handle) error {
		port, err := h.LinkByName(portName(node, network))
		if err != nil {
			return err
		}
		attrs := netlink.QdiscAttrs{LinkIndex: port.Attrs().Index, Handle: netlink.MakeHandle(1, 0),
			Parent: netlink.HANDLE_ROOT}
		if rate == 0 {
			queues, err := h.QdiscList(port)
			if err != nil {
				return err
			}
			for _, q := range queues {
				if q.Type() == "tbf" {
					return h.QdiscDel(q)
				}
			}
			return nil
		}
		const burst = 16 << 10 // a few frames, also those that the kernel has not cut to size yet
		return h.QdiscReplace(&netlink.Tbf{QdiscAttrs: attrs, Rate: rate, Buffer: ticks(rate, burst),
			Limit: uint32(rate*maxQueue/1000) + burst})
	})
	if err != nil {
		return fmt.Errorf("slow down %s in %s: %w", node, network, err)
	}
	return nil
}

// ticks is the time a burst takes at a rate, in the unit of the kernel's scheduler.
func ticks(rate uint64, burst uint32) uint32 { return netlink.Xmittime(rate, burst) }
