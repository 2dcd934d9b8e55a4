package mux

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"duet/cluster"
)

func firstLine(t *testing.T, c net.Conn) string {
	t.Helper()
	defer c.Close()
	s, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return s[:len(s)-1]
}

func TestDial(t *testing.T) {
	p := newPair(t)
	echo(t, p.beta, 'R')
	for _, c := range []struct {
		route Route
		path  string
	}{{Replication, betaRepl}, {Any, betaRepl}} { // Any: what worked last
		conn, err := p.alpha.Dial(t.Context(), "beta", 'R', c.route)
		if err != nil {
			t.Fatal(err)
		}
		if got := conn.(*Conn).Path(); got != c.path || PeerOf(conn) != "beta" {
			t.Errorf("route %d reached %s over %s", c.route, PeerOf(conn), got)
		}
		if got := firstLine(t, conn); got != "alpha" {
			t.Errorf("beta sees %q", got)
		}
	}
	conn, err := p.beta.Dial(t.Context(), "beta", 'R', Any) // to itself, first time
	if err != nil {
		t.Fatal(err)
	}
	if got := conn.(*Conn).Path(); got != betaLAN {
		t.Errorf("Any reached %s", got)
	}
	conn.Close()
}

func TestDialErrors(t *testing.T) {
	p := newPair(t)
	if _, err := p.alpha.Dial(t.Context(), "gamma", 'R', Any); !errors.Is(err, ErrNoPath) {
		t.Errorf("unknown node: %v", err)
	}
	if _, err := p.alpha.Dial(t.Context(), "beta", 'x', Any); !errors.Is(err, ErrNoService) {
		t.Errorf("unknown service: %v", err)
	}
	// Beta no longer has alpha for a member.
	echo(t, p.beta, 'R')
	p.mu.Lock()
	members := p.cfg.Members
	p.cfg.Members = members[1:]
	p.mu.Unlock()
	if _, err := p.alpha.Dial(t.Context(), "beta", 'R', Any); !errors.Is(err, ErrNotAllowed) {
		t.Errorf("no member: %v", err)
	}
	p.mu.Lock()
	p.cfg.Members = members
	p.mu.Unlock()
	// A stranger who claims to be alpha.
	stranger := newIdent(t, "alpha", new(sync.Map))
	stranger.trust = &p.trust
	m := New(Config{Identity: stranger, Cluster: func() cluster.Config { return p.config("alpha") }})
	t.Cleanup(m.Stop)
	if _, err := m.Dial(t.Context(), "beta", 'R', Any); err == nil {
		t.Error("a stranger got through")
	}
	// Addresses swapped: beta's answer as alpha.
	if _, err := connect(t.Context(), target{addr: join(betaLAN, p.cfg.Port), service: 'R',
		tls: p.alpha.cfg.Identity.Client("alpha"), wrap: p.alpha.wrap}); err == nil {
		t.Error("wrong node was accepted")
	}
	p.beta.Stop()
	if _, err := p.alpha.Dial(t.Context(), "beta", 'R', Any); err == nil {
		t.Error("dialled a stopped node")
	}
}

func TestJoinNeedsNoCertificate(t *testing.T) {
	p := newPair(t)
	for _, s := range []byte{Join, 'R'} {
		echo(t, p.beta, s)
	}
	bare := &tls.Config{InsecureSkipVerify: true}
	conn, err := DialJoin(t.Context(), join(betaLAN, p.cfg.Port), bare)
	if err != nil {
		t.Fatal(err)
	}
	if got := firstLine(t, conn); got != "" {
		t.Errorf("newcomer is %q", got)
	}
	_, err = connect(t.Context(), target{addr: join(betaLAN, p.cfg.Port), service: 'R', tls: bare, wrap: p.beta.wrap})
	if !errors.Is(err, ErrNotAllowed) {
		t.Errorf("service R without certificate: %v", err)
	}
}

// TestDialDeadPath: the first path takes the connection and says nothing.
func TestDialDeadPath(t *testing.T) {
	p := newPair(t)
	echo(t, p.beta, 'R')
	p.ice.set(betaRepl, true)
	start := time.Now()
	conn, err := p.alpha.Dial(t.Context(), "beta", 'R', Replication)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	if d := time.Since(start); conn.(*Conn).Path() != betaLAN || d < stagger || d > time.Second {
		t.Errorf("over %s after %v", conn.(*Conn).Path(), d)
	}
	p.ice.set(betaLAN, true)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := p.alpha.Dial(ctx, "beta", 'R', Any); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("all paths dead: %v", err)
	}
}

// TestVersionsAreNegotiated: two of this release speak its version, with one that names none
// version 1 is spoken, and one that offers only later ones learns why it is refused.
func TestVersionsAreNegotiated(t *testing.T) {
	p := newPair(t)
	echo(t, p.beta, 'R')
	conn, err := p.alpha.Dial(t.Context(), "beta", 'R', Any)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if v := conn.(*Conn).Speaks(); v != cluster.Current {
		t.Errorf("version %d", v)
	}
	greet := func(offers ...string) error {
		raw, err := net.Dial("tcp", join(betaLAN, p.cfg.Port))
		if err != nil {
			t.Fatal(err)
		}
		defer raw.Close()
		conf := p.alpha.cfg.Identity.Client("beta")
		conf.NextProtos = offers
		c := newConn(tls.Client(raw, conf), raw)
		if err := choose(t.Context(), c, 'R'); err != nil {
			return err
		}
		if c.speaks != 1 {
			return fmt.Errorf("version %d", c.speaks)
		}
		return nil
	}
	if err := greet(); err != nil {
		t.Errorf("version 1: %v", err)
	}
	if err := greet("duet/9", "duet/8"); !errors.Is(err, cluster.ErrOlder) || !strings.Contains(err.Error(), "1 and 2") {
		t.Errorf("only later versions: %v", err)
	}
}

// TestMembersWaitTheirTurn: when a member comes back all its modules connect at once; none
// is refused, however many they are.
func TestMembersWaitTheirTurn(t *testing.T) {
	p := newPair(t)
	echo(t, p.beta, 'R')
	from := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(alphaLAN)}}
	var all []net.Conn
	for range 5 * forMembers.Each {
		raw, err := from.DialContext(t.Context(), "tcp", join(betaLAN, p.cfg.Port))
		if err != nil {
			t.Fatal(err)
		}
		defer raw.Close()
		all = append(all, raw)
	}
	var wg sync.WaitGroup
	for i, raw := range all {
		wg.Go(func() {
			conn := newConn(tls.Client(raw, p.alpha.cfg.Identity.Client("beta")), raw)
			if err := choose(t.Context(), conn, 'R'); err != nil {
				t.Errorf("connection %d: %v", i, err)
			}
		})
	}
	wg.Wait()
}

func TestSilentCallersAreBounded(t *testing.T) {
	p := newPair(t)
	echo(t, p.beta, 'R')
	addr := join(betaLAN, p.cfg.Port)
	var silent []net.Conn
	for range forStrangers.Each {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		silent = append(silent, c)
	}
	// One more from this source is closed at once...
	waitFor(t, "refusal", func() bool {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
		_, err = c.Read(make([]byte, 1))
		var ne net.Error
		return err != nil && !(errors.As(err, &ne) && ne.Timeout())
	})
	// ...one from elsewhere is served, and the silent ones end after a while.
	d := tls.Dialer{NetDialer: &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP("127.0.41.77")}},
		Config: p.alpha.cfg.Identity.Client("beta")}
	c, err := d.DialContext(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	for _, c := range silent {
		c.SetReadDeadline(time.Now().Add(handshakeTimeout + 2*time.Second))
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("silent caller: %v", err)
		}
	}
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(5 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("no %s", what)
		}
		<-tick.C
	}
}

func TestAddressesFollowTheConfig(t *testing.T) {
	p := newPair(t)
	echo(t, p.beta, 'R')
	const other = "127.0.43.2"
	p.mu.Lock()
	p.cfg.Members = slices.Clone(p.cfg.Members)
	p.cfg.Members[1].Addrs = map[string]string{"lan": other, "repl": "192.0.2.1"} // the second does not exist here
	p.mu.Unlock()
	waitFor(t, "new address", func() bool {
		c, err := net.Dial("tcp", join(other, p.cfg.Port))
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	if c, err := net.Dial("tcp", join(betaLAN, p.cfg.Port)); err == nil {
		c.Close()
		t.Error("the old address is still open")
	}
}

func TestStartRefusesUsedPort(t *testing.T) {
	p := newPair(t)
	m := New(p.beta.cfg)
	if err := m.Start(); err == nil {
		t.Error("two on one port")
	}
	m.Stop()
	if err := m.Start(); !errors.Is(err, ErrStopped) {
		t.Errorf("start after stop: %v", err)
	}
}

func TestStopEndsHandshakes(t *testing.T) {
	p := newPair(t)
	ln, err := p.beta.Listen('R')
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.beta.Listen('R'); err == nil {
		t.Error("one service, two listeners")
	}
	c, err := net.Dial("tcp", join(betaLAN, p.cfg.Port))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	// This one is through, but nobody accepts it.
	w, err := p.alpha.Dial(t.Context(), "beta", 'R', Any)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	p.beta.Stop()
	for _, c := range []net.Conn{c, w} {
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Error("connection outlived its mux")
		}
	}
	if _, err := ln.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("accept: %v", err)
	}
	if _, err := p.beta.Listen('R'); !errors.Is(err, ErrStopped) {
		t.Errorf("listen after stop: %v", err)
	}
	if _, err := p.beta.Dial(t.Context(), "alpha", 'R', Any); err == nil {
		t.Error("dial after stop")
	}
}

// TestGlance: who only looks whether the port is open is worth no line in the log; who says
// something strange is.
func TestGlance(t *testing.T) {
	p := newPair(t)
	ln, err := net.Listen("tcp", alphaLAN+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	for said, quiet := range map[string]bool{"": true, "GET / HTTP/1.1\r\n\r\n": false} {
		here, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		there, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(here, said)
		here.Close()
		if err := p.beta.greet(t.Context(), there); err == nil || errors.Is(err, errGone) != quiet {
			t.Errorf("%q: %v", said, err)
		}
	}
}
