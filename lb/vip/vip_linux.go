package vip

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// label marks addresses as Duet's where people look at them; the kernel takes 15 bytes, beginning with the interface.
const label = ":duet"

// Held is the interface that has an address; empty: none has.
func Held(addr netip.Addr) (string, error) {
	link, _, err := find(addr)
	if err != nil || link == nil {
		return "", err
	}
	return link.Attrs().Name, nil
}

// find is the interface that has an address, and the address as the kernel has it; nil: none has.
func find(addr netip.Addr) (netlink.Link, *netlink.Addr, error) {
	all, err := netlink.AddrList(nil, family(addr))
	if err != nil {
		return nil, nil, err
	}
	for _, a := range all {
		if have, ok := netip.AddrFromSlice(a.IP); ok && have.Unmap() == addr {
			link, err := netlink.LinkByIndex(a.LinkIndex)
			return link, &a, err
		}
	}
	return nil, nil, nil
}

func family(addr netip.Addr) int {
	if addr.Is4() {
		return netlink.FAMILY_V4
	}
	return netlink.FAMILY_V6
}

// home is the interface that is on the network of an address: one of its own addresses is, which no virtual one is.
func home(p netip.Prefix) (netlink.Link, error) {
	all, err := netlink.AddrList(nil, family(p.Addr()))
	if err != nil {
		return nil, err
	}
	for _, a := range all {
		ones, all := a.Mask.Size()
		if have, ok := netip.AddrFromSlice(a.IP); ok && ones < all && p.Contains(have.Unmap()) {
			return netlink.LinkByIndex(a.LinkIndex)
		}
	}
	return nil, fmt.Errorf("no interface of this host has an address in %s: give one an address of that network, or the "+
		"module another address", p.Masked())
}

// Take puts an address on the interface that is on its network, and tells the network: at once, and some times in the
// second after it, on a goroutine that ends then or with the address. One that is there already is told again.
func Take(p netip.Prefix) error {
	link, _, err := find(p.Addr())
	if err != nil {
		return err
	}
	if link == nil {
		if link, err = home(p); err != nil {
			return err
		}
		// Of a network of its own: the kernel takes those of one network away with the first of them.
		alone := net.CIDRMask(p.Addr().BitLen(), p.Addr().BitLen())
		a := &netlink.Addr{IPNet: &net.IPNet{IP: p.Addr().AsSlice(), Mask: alone}}
		if p.Addr().Is4() {
			a.Label = link.Attrs().Name + label
			if len(a.Label) > unix.IFNAMSIZ-1 {
				a.Label = ""
			}
		} else {
			a.Flags = unix.IFA_F_NODAD // it would be of no use for a second
		}
		if err := netlink.AddrReplace(link, a); err != nil {
			return fmt.Errorf("put %s on %s: %w", p, link.Attrs().Name, err)
		}
	}
	if err := announce(link, p.Addr()); err != nil {
		return fmt.Errorf("announce %s on %s: %w", p.Addr(), link.Attrs().Name, err)
	}
	go func() {
		for range 4 { // a switch or a client may lose one
			time.Sleep(250 * time.Millisecond)
			if now, _, err := find(p.Addr()); err != nil || now == nil {
				return
			}
			_ = announce(link, p.Addr())
		}
	}()
	return nil
}

// Drop takes an address off the interface that has it.
func Drop(addr netip.Addr) error {
	link, a, err := find(addr)
	if err != nil || link == nil {
		return err
	}
	if err := netlink.AddrDel(link, a); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
		return fmt.Errorf("take %s off %s: %w", addr, link.Attrs().Name, err)
	}
	return nil
}

// announce sends what has neighbours replace what they know of an address: a gratuitous ARP request (RFC 5227, section
// 3), or an unsolicited neighbour advertisement (RFC 4861, section 7.2.6).
func announce(link netlink.Link, addr netip.Addr) error {
	if addr.Is4() {
		return announceARP(link, addr)
	}
	return announceND(link, addr)
}

func announceARP(link netlink.Link, addr netip.Addr) error {
	at := link.Attrs()
	if len(at.HardwareAddr) != 6 {
		return nil // a network without such addresses has nothing to replace
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	to := &unix.SockaddrLinklayer{Protocol: swap(unix.ETH_P_ARP), Ifindex: at.Index, Halen: 6,
		Addr: [8]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}}
	return unix.Sendto(fd, arp(at.HardwareAddr, addr), 0, to)
}

// arp is the request of RFC 826 by which an address asks for itself.
func arp(hardware net.HardwareAddr, addr netip.Addr) []byte {
	b := []byte{0, 1, 8, 0, 6, 4, 0, 1} // Ethernet, IPv4, their lengths, request
	b = append(append(b, hardware...), addr.AsSlice()...)
	return append(append(b, make([]byte, 6)...), addr.AsSlice()...)
}

// swap is a number in network order as the kernel takes it.
func swap(n uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, n))
}

func announceND(link netlink.Link, addr netip.Addr) error {
	c, err := net.ListenPacket("ip6:ipv6-icmp", addr.String())
	if err != nil {
		return err
	}
	defer c.Close()
	raw, err := c.(*net.IPConn).SyscallConn()
	if err != nil {
		return err
	}
	var setErr error
	err = raw.Control(func(fd uintptr) { // a receiver drops what has passed a router
		setErr = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_HOPS, 255)
	})
	if err = errors.Join(err, setErr); err != nil {
		return err
	}
	b := []byte{136, 0, 0, 0, 0x20, 0, 0, 0} // neighbour advertisement, override
	b = append(append(b, addr.AsSlice()...), 2, 1)
	b = append(b, link.Attrs().HardwareAddr...)
	_, err = c.WriteTo(b, &net.IPAddr{IP: net.IPv6linklocalallnodes, Zone: link.Attrs().Name})
	return err
}
