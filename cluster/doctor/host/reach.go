package host

import (
	"context"
	"errors"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"duet/cluster"
	"duet/cluster/doctor"
)

// reachTime is how long a port may take to answer: three tries of TCP's first packet
// take 1 + 2 s.
const reachTime = 3 * time.Second

// The ports of a node, after cluster.Config.Port.
const (
	heartbeatPort = 1 // TCP and UDP, of package gossip
	apiPort       = 2 // TCP, of the API over TLS
)

// Routes lists the ways from the node c.Self to the others, with what is to be tried. The API is served on a node's
// first address, unless it was told otherwise. A network on which one of both has no address is left out. Nothing
// has been tried yet.
func Routes(c cluster.Config) []doctor.Route {
	self, _ := c.Member(c.Self)
	var out []doctor.Route
	for _, m := range c.Members {
		for _, n := range c.Networks {
			to, from := m.Addrs[n.Name], self.Addrs[n.Name]
			if m.Node == c.Self || to == "" || from == "" {
				continue
			}
			r := doctor.Route{To: string(m.Node), Network: n.Name, From: from, Addr: to, Probes: []doctor.Probe{
				{Proto: doctor.TCP, Port: c.Port}, {Proto: doctor.TCP, Port: c.Port + heartbeatPort},
				{Proto: doctor.UDP, Port: c.Port + heartbeatPort}}}
			if c.Paths(m.Node, false)[0] == to {
				r.Probes = append(r.Probes, doctor.Probe{Proto: doctor.TCP, Port: c.Port + apiPort, API: true})
			}
			out = append(out, r)
		}
	}
	return out
}

// Reach tries the TCP ports of the routes, all at once, and fills in what it found. UDP says nothing of itself: who
// knows by other means whether it gets through fills that in. It returns after reachTime at the latest. A port of
// mux that is opened and closed again leaves no line in the other node's log.
func Reach(ctx context.Context, routes []doctor.Route) {
	ctx, cancel := context.WithTimeout(ctx, reachTime)
	defer cancel()
	var wg sync.WaitGroup
	for _, r := range routes {
		for i := range r.Probes {
			if p := &r.Probes[i]; p.Proto == doctor.TCP {
				wg.Go(func() { p.State = connect(ctx, r.From, net.JoinHostPort(r.Addr, strconv.Itoa(p.Port))) })
			}
		}
	}
	wg.Wait()
}

// connect opens a connection from one of this computer's addresses and closes it again. The address says over which
// network the way goes. What fails here, such as an address that this computer does not have, is Silent too.
func connect(ctx context.Context, from, to string) string {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	conn, err := d.DialContext(ctx, "tcp", to)
	switch {
	case err == nil:
		_ = conn.Close() // nothing was said
		return doctor.Open
	case errors.Is(err, syscall.ECONNREFUSED):
		return doctor.Refused
	}
	return doctor.Silent
}

// Ports looks whether a daemon of the node c.Self could have its ports: it takes each for a moment. Only for a node
// whose daemon does not run: a daemon that starts in the same moment would find its port taken.
func Ports(c cluster.Config) []doctor.Port {
	var out []doctor.Port
	paths := c.Paths(c.Self, false)
	for i, ip := range paths {
		for offset, protos := range [][]string{{doctor.TCP}, {doctor.TCP, doctor.UDP}, {doctor.TCP}} {
			if offset == apiPort && i > 0 {
				continue
			}
			for _, proto := range protos {
				p := doctor.Port{Proto: proto, Addr: net.JoinHostPort(ip, strconv.Itoa(c.Port+offset))}
				p.Problem = take(p)
				out = append(out, p)
			}
		}
	}
	return out
}

// take binds a port and lets it go. It returns what a Port has as its Problem.
func take(p doctor.Port) string {
	var err error
	if p.Proto == doctor.UDP {
		var conn net.PacketConn
		if conn, err = net.ListenPacket("udp", p.Addr); err == nil {
			err = conn.Close()
		}
	} else {
		var ln net.Listener
		if ln, err = net.Listen("tcp", p.Addr); err == nil {
			err = ln.Close()
		}
	}
	var call *os.SyscallError
	switch {
	case err == nil:
		return ""
	case errors.Is(err, syscall.EADDRINUSE):
		return doctor.Busy
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return doctor.NoAddr
	case errors.As(err, &call):
		return call.Err.Error()
	}
	return err.Error()
}

// Libvirt looks whether a libvirt daemon takes connections, for who cannot ask it more. The first socket that
// answers will do: a host has the one daemon for all, or one for QEMU.
func Libvirt(ctx context.Context) doctor.Hypervisor {
	sockets := []string{"/run/libvirt/virtqemud-sock", "/run/libvirt/libvirt-sock"}
	for _, s := range sockets {
		conn, err := (&net.Dialer{Timeout: reachTime}).DialContext(ctx, "unix", s)
		if err == nil {
			_ = conn.Close() // nothing was said
			return doctor.Hypervisor{Name: "libvirt"}
		}
	}
	return doctor.Hypervisor{Problem: "libvirt does not answer on " + strings.Join(sockets, " or ")}
}
