package netns

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/vishvananda/netlink"
	vnetns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Config describes the LAN.
type Config struct {
	Nodes    []string  // one namespace each; node i has host number 11+i in every subnet
	Networks []Network // every node has one interface in each, of the network's name
}

// Network is one broadcast domain.
type Network struct {
	Name   string       // also the name of the interface in every node; [a-z][a-z0-9]*, short
	Subnet netip.Prefix // IPv4, at least a /27
	// Guests: it is for VMs. In every node the interface is a bridge with the cable as its port, and has no address.
	// The gateway has one.
	Guests bool
}

// Gateway is the name by which a Cut means the switch itself: the owner of the first network's gateway address, which
// is every node's default route.
const Gateway = "gateway"

const (
	gatewayNumber   = 1
	firstNodeNumber = 11
	folder          = "/run/netns" // where ip netns looks for names
)

// ErrInUse is returned by New when another process runs a LAN of the same prefix.
var ErrInUse = errors.New("prefix is in use by another process")

// LAN is a running network. Its methods may be called from several goroutines. mu guards cuts only. Reset,
// SetLink and Slow of one node must not run at the same time; nothing keeps them apart.
type LAN struct {
	prefix string    // of the names below folder
	cfg    Config    // as it was given; never changed
	lock   io.Closer // held for the life of the LAN, so that a second New does not take this one for a leftover

	mu   sync.Mutex
	cuts map[Cut]bool // in force; replaced as a whole, never changed
}

// New removes what an earlier, dead process left under this prefix and builds the LAN. The namespaces are named
// PREFIX-NODE and PREFIX-switch, for ip netns. On an error nothing stays behind. It returns when every link is
// up; a bridge without STP forwards at once. ErrInUse if a living process has the prefix.
func New(prefix string, cfg Config) (*LAN, error) {
	if err := cfg.validate(prefix); err != nil {
		return nil, fmt.Errorf("make LAN: %w", err)
	}
	l := &LAN{prefix: prefix, cfg: cfg, cuts: map[Cut]bool{}}
	if err := l.claim(); err != nil {
		return nil, fmt.Errorf("make LAN: %w", err)
	}
	err := sweep(prefix)
	if err == nil {
		err = l.build()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make LAN: %w", err), l.Close())
	}
	return l, nil
}

// claim takes a name that only one process can have: that of an abstract socket, which the kernel drops when its
// holder dies and which leaves no file behind. The name is one of the network namespace of this process, so it
// keeps apart only processes that share that.
func (l *LAN) claim() error {
	lock, err := net.Listen("unix", "@duet-netns-"+l.prefix)
	if errors.Is(err, unix.EADDRINUSE) {
		return fmt.Errorf("%w: %s", ErrInUse, l.prefix)
	}
	l.lock = lock
	return err
}

// Close removes the namespaces and everything in them. Processes that still run there keep a network without
// links. Processes in them are killed first. The LAN must not be used afterwards.
func (l *LAN) Close() error {
	err := sweep(l.prefix)
	return errors.Join(err, l.lock.Close())
}

// Path returns the file that stands for the node's network namespace. It is a name only, also of a node that is
// not there. The file is another one after Reset.
func (l *LAN) Path(node string) string { return filepath.Join(folder, l.prefix+"-"+node) }

// Addr returns the address of a node, or of Gateway, in a network. It is the zero Addr for unknown names.
func (l *LAN) Addr(node, network string) netip.Addr {
	for _, n := range l.cfg.Networks {
		if n.Name != network {
			continue
		}
		if node == Gateway {
			return number(n.Subnet, gatewayNumber)
		}
		for i, name := range l.cfg.Nodes {
			if name == node {
				return number(n.Subnet, firstNodeNumber+i)
			}
		}
	}
	return netip.Addr{}
}

// Hosts returns lines for /etc/hosts: each node's name with its address in the first network, and NODE-NETWORK for all.
func (l *LAN) Hosts() string {
	var b strings.Builder
	for i, n := range l.cfg.Networks {
		if n.Guests {
			continue
		}
		for _, node := range l.cfg.Nodes {
			names := node + "-" + n.Name
			if i == 0 {
				names = node + " " + names
			}
			fmt.Fprintf(&b, "%s %s\n", l.Addr(node, n.Name), names)
		}
	}
	return b.String()
}

// number returns host number n of a subnet. It does not look whether that is still in the subnet; validate does.
func number(subnet netip.Prefix, n int) netip.Addr {
	a := subnet.Masked().Addr()
	for range n {
		a = a.Next()
	}
	return a
}

// Switch is the name by which Do means where the switch runs. The gateway's addresses are there.
const Switch = "switch"

// build leaves what it has made on an error; New removes that.
func (l *LAN) build() error {
	if err := l.space(Switch); err != nil {
		return err
	}
	for i, n := range l.cfg.Networks {
		if err := l.with(Switch, func(h *netlink.Handle) error { return bridge(h, n, i == 0 || n.Guests) }); err != nil {
			return fmt.Errorf("build network %s: %w", n.Name, err)
		}
	}
	for _, node := range l.cfg.Nodes {
		if err := l.connect(node); err != nil {
			return err
		}
	}
	return l.apply(nil)
}

// space makes an empty namespace. ip netns also makes its folder a shared mount, so that other mount namespaces see a
// later removal.
func (l *LAN) space(name string) error {
	if _, err := output("ip", "netns", "add", l.prefix+"-"+name); err != nil {
		return err
	}
	return l.with(name, func(h *netlink.Handle) error { return up(h, "lo") })
}

// connect makes a node's namespace with an interface in every network.
func (l *LAN) connect(node string) error {
	if err := l.space(node); err != nil {
		return err
	}
	for i, n := range l.cfg.Networks {
		if err := l.plug(node, n, i == 0); err != nil {
			return fmt.Errorf("plug %s into %s: %w", node, n.Name, err)
		}
	}
	return nil
}

// Reset gives a node a new network namespace, as a boot of its host would: addresses, routes and rules that its
// programs have set are gone, and so are processes that still run there. Cuts stay, a missing cable is plugged
// in. A proc.Node finds the new namespace at its next Boot. It kills what still runs there, as a proc.Node that
// is off has nothing. If it fails half way the node has lost links; a further Reset makes all of it anew.
func (l *LAN) Reset(node string) error {
	if !slices.Contains(l.cfg.Nodes, node) {
		return fmt.Errorf("reset network of %q: no such node", node)
	}
	// The kernel removes a namespace some time after its last user; its end of each cable must be gone before.
	err := l.with(Switch, func(h *netlink.Handle) error {
		for _, n := range l.cfg.Networks {
			port, err := h.LinkByName(portName(node, n.Name))
			if gone := (netlink.LinkNotFoundError{}); errors.As(err, &gone) {
				continue // a Reset before failed half way
			}
			if err == nil {
				err = h.LinkDel(port)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		if _, e := os.Lstat(l.Path(node)); !errors.Is(e, fs.ErrNotExist) {
			err = remove(l.Path(node))
		}
	}
	if err == nil {
		err = l.connect(node)
	}
	if err != nil {
		return fmt.Errorf("reset network of %s: %w", node, err)
	}
	return nil
}

// bridge makes the switch of one network, with the gateway's address if it is to have that.
func bridge(h *netlink.Handle, n Network, gateway bool) error {
	if _, err := addBridge(h, bridgeName(n.Name)); err != nil {
		return err
	}
	if gateway {
		if err := address(h, bridgeName(n.Name), number(n.Subnet, gatewayNumber), n.Subnet); err != nil {
			return err
		}
	}
	return up(h, bridgeName(n.Name))
}

// addBridge: without snooping multicast reaches everybody, as through a plain switch.
func addBridge(h *netlink.Handle, name string) (netlink.Link, error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	off := false
	b := &netlink.Bridge{LinkAttrs: attrs, MulticastSnooping: &off}
	return b, h.LinkAdd(b)
}

// inner makes the bridge in a node of a network of guests, with the cable as its port. It needs no address: the
// host only carries what its guests say.
func inner(h *netlink.Handle, n Network) error {
	b, err := addBridge(h, n.Name)
	if err != nil {
		return err
	}
	cable, err := h.LinkByName(cableName(n))
	if err != nil {
		return err
	}
	if err := h.LinkSetMaster(cable, b); err != nil {
		return err
	}
	return errors.Join(up(h, cableName(n)), up(h, n.Name))
}

// plug connects a node to a network by a veth pair: one end in the node, the other a port of the bridge. Both
// ends are made in one step, the inner one already in its namespace: its name may be one that exists where the
// switch is.
func (l *LAN) plug(node string, n Network, first bool) error {
	inside, err := vnetns.GetFromPath(l.Path(node))
	if err != nil {
		return err
	}
	defer inside.Close()
	port := portName(node, n.Name)
	err = l.with(Switch, func(h *netlink.Handle) error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = port
		veth := &netlink.Veth{LinkAttrs: attrs, PeerName: cableName(n), PeerNamespace: netlink.NsFd(inside)}
		if err := h.LinkAdd(veth); err != nil {
			return err
		}
		br, err := h.LinkByName(bridgeName(n.Name))
		if err != nil {
			return err
		}
		if err := h.LinkSetMaster(veth, br); err != nil {
			return err
		}
		return up(h, port)
	})
	if err != nil {
		return err
	}
	return l.with(node, func(h *netlink.Handle) error {
		if n.Guests {
			return inner(h, n)
		}
		if err := address(h, n.Name, l.Addr(node, n.Name), n.Subnet); err != nil {
			return err
		}
		if err := up(h, n.Name); err != nil || !first {
			return err
		}
		return h.RouteAdd(&netlink.Route{Gw: number(n.Subnet, gatewayNumber).AsSlice()})
	})
}

// with calls fn with a netlink handle that works in the namespace of a node or of the switch. The calling thread
// does not change its namespace: the handle's socket is made in the other one.
func (l *LAN) with(name string, fn func(*netlink.Handle) error) error {
	ns, err := vnetns.GetFromPath(l.Path(name))
	if err != nil {
		return fmt.Errorf("open namespace of %s: %w", name, err)
	}
	defer ns.Close()
	h, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("enter namespace of %s: %w", name, err)
	}
	defer h.Close()
	return fn(h)
}

// up switches a link on; it does not wait for its carrier.
func up(h *netlink.Handle, link string) error {
	l, err := h.LinkByName(link)
	if err != nil {
		return fmt.Errorf("find link %s: %w", link, err)
	}
	return h.LinkSetUp(l)
}

func address(h *netlink.Handle, link string, addr netip.Addr, subnet netip.Prefix) error {
	l, err := h.LinkByName(link)
	if err != nil {
		return fmt.Errorf("find link %s: %w", link, err)
	}
	a, err := netlink.ParseAddr(netip.PrefixFrom(addr, subnet.Bits()).String())
	if err != nil {
		return err
	}
	return h.AddrAdd(l, a)
}

// SetLink takes the cable of a node in one network away or plugs it in again: the node sees the carrier change.
// Of a Cut the node knows nothing.
func (l *LAN) SetLink(node, network string, plugged bool) error {
	err := l.with(Switch, func(h *netlink.Handle) error {
		port, err := h.LinkByName(portName(node, network))
		if err != nil {
			return err
		}
		if plugged {
			return h.LinkSetUp(port)
		}
		return h.LinkSetDown(port)
	})
	if err != nil {
		return fmt.Errorf("set link of %s in %s: %w", node, network, err)
	}
	return nil
}
