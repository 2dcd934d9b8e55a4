package clustertest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"time"
)

// Network carries packets and streams between hosts in memory. All links are
// good until told otherwise. It uses the clock only for Delay, so it works
// inside a synctest bubble.
type Network struct {
	mu    sync.Mutex
	rand  *rand.Rand
	hosts map[string]*Host // by "ip:port"
	links map[[2]string]Link
	wg    sync.WaitGroup
}

// Link is how one direction between two IPs behaves.
type Link struct {
	Cut   bool          // nothing arrives and nobody is told
	Delay time.Duration // of packets and of stream writes
	Drop  float64       // part of the packets that get lost; streams repeat theirs
}

// NewNetwork returns a network without hosts; seed makes Drop repeatable.
func NewNetwork(seed uint64) *Network {
	return &Network{rand: rand.New(rand.NewPCG(seed, 1)), hosts: make(map[string]*Host), links: make(map[[2]string]Link)}
}

// Set says how packets from one IP to another fare. It holds for what is sent from now on, also on streams that are
// there.
func (n *Network) Set(from, to string, l Link) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.links[[2]string{from, to}] = l
}

// Partition cuts both directions between two IPs.
func (n *Network) Partition(a, b string) {
	n.Set(a, b, Link{Cut: true})
	n.Set(b, a, Link{Cut: true})
}

// Connect makes both directions between two IPs good again.
func (n *Network) Connect(a, b string) {
	n.Set(a, b, Link{})
	n.Set(b, a, Link{})
}

// Delay slows both directions between two IPs.
func (n *Network) Delay(a, b string, d time.Duration) {
	n.Set(a, b, Link{Delay: d})
	n.Set(b, a, Link{Delay: d})
}

// Drop loses that part of the packets between two IPs, in both directions.
func (n *Network) Drop(a, b string, part float64) {
	n.Set(a, b, Link{Drop: part})
	n.Set(b, a, Link{Drop: part})
}

// Wait returns when no packet is under way; call it after all hosts are closed.
func (n *Network) Wait() { n.wg.Wait() }

// Packet is what a host receives.
type Packet struct {
	Data []byte
	From net.Addr
	At   time.Time
}

// Host is one address on a Network.
type Host struct {
	n       *Network
	addr    *net.TCPAddr
	packets chan Packet
	streams chan net.Conn
	once    sync.Once
	closed  chan struct{}
}

// Listen adds a host; the address must be free.
func (n *Network) Listen(ip string, port int) (*Host, error) {
	a := &net.TCPAddr{IP: net.ParseIP(ip), Port: port}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.hosts[a.String()] != nil {
		return nil, fmt.Errorf("listen %s: address already in use", a)
	}
	h := &Host{n: n, addr: a, packets: make(chan Packet, 256), streams: make(chan net.Conn), closed: make(chan struct{})}
	n.hosts[a.String()] = h
	return h, nil
}

// Addr is the host's address.
func (h *Host) Addr() *net.TCPAddr { return h.addr }

// Packets delivers what was sent to the host. It is never closed, and holds 256: more are dropped.
func (h *Host) Packets() <-chan Packet { return h.packets }

// Streams delivers connections that others have dialled.
func (h *Host) Streams() <-chan net.Conn { return h.streams }

// Close removes the host; established streams stay with their users.
func (h *Host) Close() {
	h.once.Do(func() {
		h.n.mu.Lock()
		delete(h.n.hosts, h.addr.String())
		h.n.mu.Unlock()
		close(h.closed)
	})
}

// link returns how from reaches the host at to, and the host.
func (n *Network) link(from *net.TCPAddr, to string) (Link, *Host, error) {
	a, err := net.ResolveTCPAddr("tcp", to) // a literal address, nothing is looked up
	if err != nil {
		return Link{}, nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	l := n.links[[2]string{from.IP.String(), a.IP.String()}]
	if l.Drop > 0 && n.rand.Float64() < l.Drop {
		l.Cut = true
	}
	return l, n.hosts[a.String()], nil
}

// Send sends a packet. That it got lost is no error.
func (h *Host) Send(data []byte, to string) error {
	l, dst, err := h.n.link(h.addr, to)
	if err != nil || l.Cut || dst == nil {
		return err
	}
	p := Packet{Data: append([]byte{}, data...), From: &net.UDPAddr{IP: h.addr.IP, Port: h.addr.Port}}
	if l.Delay == 0 {
		dst.deliver(p)
		return nil
	}
	h.n.wg.Add(1)
	time.AfterFunc(l.Delay, func() {
		defer h.n.wg.Done()
		dst.deliver(p)
	})
	return nil
}

// deliver drops the packet if the receiver's queue is full, as sockets do.
func (h *Host) deliver(p Packet) {
	p.At = time.Now()
	select {
	case h.packets <- p:
	default:
	}
}

// Dial opens a stream; across a cut it waits for the timeout. It waits until the other host receives from Streams. A
// dial may fall to Drop, and then waits like one across a cut.
func (h *Host) Dial(to string, timeout time.Duration) (net.Conn, error) {
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	l, dst, err := h.n.link(h.addr, to)
	if err != nil {
		return nil, err
	}
	l.Drop = 0
	if l.Cut {
		<-timer.C
		return nil, fmt.Errorf("dial %s: %w", to, os.ErrDeadlineExceeded)
	}
	if dst == nil {
		return nil, fmt.Errorf("dial %s: connection refused", to)
	}
	a, b := net.Pipe()
	select {
	case dst.streams <- &stream{Conn: b, n: h.n, local: dst.addr, remote: h.addr}:
		return &stream{Conn: a, n: h.n, local: h.addr, remote: dst.addr}, nil
	case <-dst.closed:
		err = errors.New("connection refused")
	case <-timer.C:
		err = os.ErrDeadlineExceeded
	}
	a.Close()
	b.Close()
	return nil, fmt.Errorf("dial %s: %w", to, err)
}

// stream is one end of a connection.
type stream struct {
	net.Conn
	n             *Network
	local, remote *net.TCPAddr
}

// Write swallows what is written across a cut. It waits for the reader: there is no buffer between, as net.Pipe has
// none.
func (s *stream) Write(p []byte) (int, error) {
	s.n.mu.Lock()
	l := s.n.links[[2]string{s.local.IP.String(), s.remote.IP.String()}]
	s.n.mu.Unlock()
	if l.Delay > 0 {
		<-time.After(l.Delay)
	}
	if l.Cut {
		return len(p), nil
	}
	return s.Conn.Write(p)
}

// LocalAddr implements net.Conn.
func (s *stream) LocalAddr() net.Addr { return s.local }

// RemoteAddr implements net.Conn.
func (s *stream) RemoteAddr() net.Addr { return s.remote }
