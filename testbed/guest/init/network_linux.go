package main

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"duet/testbed/guest/record"
)

const (
	card     = "eth0"                 // the only one
	echoPort = 7                      // UDP, that of RFC 862, though what comes back is the number of the boot
	hello    = 100 * time.Millisecond // between two of them: switches learn where this guest is
)

// serveNetwork gives the card its address and answers from then on. It does not wait for anybody: without a
// cable it sends in vain. The number of the boot tells whoever asks which of two guests has answered.
func serveNetwork(at netip.Prefix, boot record.BootID) error {
	if err := configure(at); err != nil {
		return fmt.Errorf("configure %s: %w", card, err)
	}
	c, err := net.ListenUDP("udp4", &net.UDPAddr{Port: echoPort})
	if err != nil {
		return fmt.Errorf("serve network: %w", err)
	}
	id := fmt.Appendf(nil, "%x", boot)
	go func() {
		for buf := make([]byte, 2048); ; {
			_, from, err := c.ReadFromUDPAddrPort(buf)
			if err == nil && from.Port() != echoPort { // else two guests answered each other for ever
				_, _ = c.WriteToUDPAddrPort(id, from)
			}
		}
	}()
	go func() {
		everybody := net.UDPAddrFromAddrPort(netip.AddrPortFrom(broadcast(at), echoPort))
		for range time.Tick(hello) {
			_, _ = c.WriteToUDP(id, everybody) // the cable may be away
		}
	}()
	return nil
}

// broadcast is the address of everybody in a subnet. A prefix of 32 bits is its own.
func broadcast(p netip.Prefix) netip.Addr {
	a := p.Addr().As4()
	all := binary.BigEndian.Uint32(a[:]) | ^uint32(0)>>p.Bits()
	binary.BigEndian.PutUint32(a[:], all)
	return netip.AddrFrom4(a)
}

// configure sets address and mask, and switches the card on. By ioctl, as there is no program of the network in
// here. IPv4 only.
func configure(at netip.Prefix) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	address, mask := at.Addr().As4(), net.CIDRMask(at.Bits(), 32)
	for _, step := range []struct {
		request uint
		set     func(*unix.Ifreq) error
	}{
		{unix.SIOCSIFADDR, func(r *unix.Ifreq) error { return r.SetInet4Addr(address[:]) }},
		{unix.SIOCSIFNETMASK, func(r *unix.Ifreq) error { return r.SetInet4Addr(mask) }},
		{unix.SIOCSIFFLAGS, func(r *unix.Ifreq) error { r.SetUint16(unix.IFF_UP); return nil }},
	} {
		r, err := unix.NewIfreq(card)
		if err == nil {
			err = step.set(r)
		}
		if err == nil {
			err = unix.IoctlIfreq(fd, step.request, r)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
