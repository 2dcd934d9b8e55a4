package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"time"

	"duet/blockrepl"
	"duet/blockrepl/backing"
	"duet/blockrepl/badgerlog"
	"duet/blockrepl/host/cpuidle"
	"duet/blockrepl/nbd"
	"duet/blockrepl/wire"
)

const (
	childArg   = "child"         // the argument that makes this program one
	exportName = "vol"           // of every setup
	epoch      = 1               // nobody else is there to have another one
	patience   = 2 * time.Minute // for a first synchronisation
)

// order is what the bench tells a child: the first line says what it is, later ones what to do. The end of its
// input ends the child. A line of JSON on standard input. Fields that a role does not know are ignored.
type order struct {
	Role   string            `json:"role,omitempty"`   // primary, alone, secondary
	Image  string            `json:"image,omitempty"`  // raw, complete
	Log    string            `json:"log,omitempty"`    // directory
	Socket string            `json:"socket,omitempty"` // of primary and alone: where NBD is served
	Sleepy bool              `json:"sleepy,omitempty"` // do not keep CPUs awake, as duetd does
	Peer   string            `json:"peer,omitempty"`   // address of the secondary
	TLS    *keys             `json:"tls,omitempty"`    // nil: none
	Ticket *blockrepl.Ticket // a later order to the secondary: be complete
}

// news is what a child tells the bench. A line of JSON on standard output; standard error is for people.
type news struct {
	Is     string            `json:"is"`               // listening, drained, complete, serving
	Addr   string            `json:"addr,omitempty"`   // with listening
	Ticket *blockrepl.Ticket `json:"ticket,omitempty"` // with drained
}

// node is a child process: one copy of the volume.
type node struct {
	order
	orders *json.Decoder      // standard input
	tell   *json.Encoder      // standard output
	dev    *backing.File      // the image; closed by child
	log    blockrepl.DirtyLog // durable, as in production
}

// child is the life of a child process. Device and log are closed last, after whatever uses them. The error of a
// child is its exit status; the bench sees the end of its news.
func child(in io.Reader, out io.Writer) (err error) {
	n := &node{orders: json.NewDecoder(bufio.NewReader(in)), tell: json.NewEncoder(out)}
	if err := n.orders.Decode(&n.order); err != nil {
		return fmt.Errorf("read orders: %w", err)
	}
	if n.dev, err = backing.OpenFile(n.Image, 0); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.dev.Close()) }()
	store, err := badgerlog.Open(badgerlog.Config{Dir: n.Log})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	n.log = store.Log("bench")
	if n.Role == "secondary" {
		return n.secondary()
	}
	return n.primary()
}

// next reads one more order; io.EOF when the bench wants the end.
func (n *node) next() (o order, err error) { return o, n.orders.Decode(&o) }

// secondary applies what one primary sends until the bench ends it. It serves one connection: a primary that
// comes back would be measured in another state. The end of the orders closes it.
func (n *node) secondary() error {
	logger := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	s, err := blockrepl.NewSecondary(blockrepl.SecondaryConfig{Volume: "bench", Node: "beta", Identity: "bench",
		Device: n.dev, Log: n.log, Logger: logger})
	if err != nil {
		return err
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer ln.Close()
	if err := n.tell.Encode(news{Is: "listening", Addr: ln.Addr().String()}); err != nil {
		return err
	}
	raw, err := ln.Accept()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer n.keepAwake(ctx, s.Applied)()
	defer cancel()
	served := make(chan error, 1)
	go func() { served <- n.apply(ctx, s, raw) }()
	for {
		o, err := n.next()
		if err != nil {
			s.Close()
			<-served // ends with the connection, which is what was wanted
			return ignoreEOF(err)
		}
		if err := s.Complete(ctx, *o.Ticket); err != nil {
			return err
		}
		if err := n.tell.Encode(news{Is: "complete"}); err != nil {
			return err
		}
	}
}

// apply secures the connection, reads the greeting and serves until the connection ends.
func (n *node) apply(ctx context.Context, s *blockrepl.Secondary, raw net.Conn) error {
	conn, err := n.TLS.server(raw)
	if err != nil {
		return err
	}
	c := wire.NewConn(conn)
	hello, err := blockrepl.ReadHello(ctx, c)
	if err != nil {
		return errors.Join(err, c.Close())
	}
	return s.Serve(ctx, c, hello, false)
}

// primary serves the volume until the bench ends it. What it loses, peer or disk, ends it with an error, so that
// no figure is of a volume that is not what its name says.
func (n *node) primary() (err error) {
	logger := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	drained, failed := make(chan struct{}, 1), make(chan error, 1)
	p, err := blockrepl.NewPrimary(blockrepl.PrimaryConfig{Volume: "bench", Node: "alpha", Identity: "bench",
		Device: n.dev, Log: n.log, Logger: logger, Events: func(e blockrepl.Event) { react(e, drained, failed) }})
	if err != nil {
		return err
	}
	p.Start()
	defer p.Close()
	ctx, cancel := context.WithCancel(context.Background())
	defer n.keepAwake(ctx, func() uint64 { return uint64(p.Stats().Mirrored) })()
	defer cancel()
	if err := p.GoAlone(epoch); err != nil {
		return err
	}
	if n.Role == "primary" {
		if err := n.connect(p, drained, failed); err != nil {
			return err
		}
	}
	front := nbd.New(nbd.Options{Socket: n.Socket, Name: exportName, Log: logger})
	if err := front.Listen(); err != nil {
		return err
	}
	served := make(chan error, 1)
	go func() { served <- front.Serve(p) }()
	defer func() { err = errors.Join(err, front.Close(), <-served) }()
	if err := n.tell.Encode(news{Is: "serving"}); err != nil {
		return err
	}
	end := make(chan error, 1)
	go func() { _, err := n.next(); end <- err }()
	select {
	case err := <-end:
		return ignoreEOF(err)
	case err := <-failed:
		return err
	}
}

// keepAwake does for a child what duetd does for its volumes; wait returns when it has ended, after ctx. Without
// the right to hold them (no root) it says so once and goes on.
func (n *node) keepAwake(ctx context.Context, writes func() uint64) (wait func()) {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if n.Sleepy {
			return
		}
		if err := cpuidle.Keep(ctx, writes, cpuidle.Hold); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
		}
	}()
	return func() { <-ended }
}

// react keeps the first of each kind of news.
func react(e blockrepl.Event, drained chan<- struct{}, failed chan<- error) {
	var err error
	switch e := e.(type) {
	case blockrepl.Drained:
		select {
		case drained <- struct{}{}:
		default:
		}
		return
	case blockrepl.PeerLost:
		err = fmt.Errorf("peer lost: %w", e.Err)
	case blockrepl.DeviceFailed:
		err = fmt.Errorf("local copy failed: %w", e.Err)
	default:
		return
	}
	select {
	case failed <- err:
	default:
	}
}

// connect brings the volume to Connected, as the module engine does. GoAlone came before, so the peer, which
// knows nothing of this volume, is resynced as a new copy is. The steps are those of blockrepl/DESIGN.md,
// "States and the engine's part", with the bench in place of the peer's engine.
func (n *node) connect(p *blockrepl.Primary, drained <-chan struct{}, failed <-chan error) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	raw, err := net.Dial("tcp", n.Peer)
	if err != nil {
		return err
	}
	conn, err := n.TLS.client(raw)
	if err != nil {
		return err
	}
	if err := p.Attach(ctx, wire.NewConn(conn), epoch); err != nil {
		return err
	}
	select {
	case <-drained:
	case err := <-failed:
		return err
	case <-ctx.Done():
		return fmt.Errorf("synchronise: %w", ctx.Err())
	}
	ticket := p.Ticket()
	if err := n.tell.Encode(news{Is: "drained", Ticket: &ticket}); err != nil {
		return err
	}
	if _, err := n.next(); err != nil { // the secondary is complete
		return err
	}
	if err := p.PeerComplete(); err != nil {
		return err
	}
	if s := p.Progress().State; s != blockrepl.Connected {
		return fmt.Errorf("volume is %v after the synchronisation", s)
	}
	return nil
}

func ignoreEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// keys are one side's certificate and key and the authority of both, in PEM.
type keys struct{ CA, Cert, Key []byte }

// config: it is as strict as cluster/pki: TLS 1.3, and certificates of both sides, of one authority.
func (k *keys) config() (*tls.Config, error) {
	pair, err := tls.X509KeyPair(k.Cert, k.Key)
	if err != nil {
		return nil, fmt.Errorf("load key pair: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(k.CA) {
		return nil, errors.New("load authority: no certificate")
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{pair}, RootCAs: pool, ServerName: tlsName,
		ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert, DynamicRecordSizingDisabled: true,
	}, nil
}

// client and server secure a connection; without keys it stays as it is.
func (k *keys) client(raw net.Conn) (net.Conn, error) { return k.secure(raw, tls.Client) }

func (k *keys) server(raw net.Conn) (net.Conn, error) { return k.secure(raw, tls.Server) }

// secure: the handshake is done here and not by the first write, which wire would hold back. raw is closed on
// its error.
func (k *keys) secure(raw net.Conn, side func(net.Conn, *tls.Config) *tls.Conn) (net.Conn, error) {
	if k == nil {
		return raw, nil
	}
	cfg, err := k.config()
	if err != nil {
		return nil, err
	}
	conn := side(wire.Buffered(raw), cfg)
	ctx, cancel := context.WithTimeout(context.Background(), endPatience)
	defer cancel()
	if err := conn.HandshakeContext(ctx); err != nil { // before wire takes over, which holds writes back
		raw.Close()
		return nil, fmt.Errorf("secure connection: %w", err)
	}
	return conn, nil
}
