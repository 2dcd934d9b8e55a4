package pki

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"duet/cluster"
	"duet/cluster/enroll"
	"duet/cluster/ratelimit"
)

const (
	maxMessage   = 256 << 10             // bytes of a request or an answer
	callTimeout  = 10 * time.Second      // one request and its answer
	callTries    = 3                     // of the same request, with the same key
	maxCallers   = 4                     // joins at once; let in one after the other
	refusedCause = "the cluster refused" // prefix of errors that another try cannot change
)

// errRefused wraps what the other side said, so that Join does not ask again.
var errRefused = errors.New(refusedCause)

// reply is the answer on the wire. A failure has an Error, and a Kind if it has a sentinel; a success the rest.
type reply struct {
	*JoinResponse
	Kind  string `json:"kind,omitempty"`
	Error string `json:"error,omitempty"`
}

// kinds lets sentinels cross the wire. The names are on the wire: clients of other releases know them.
func kinds() map[string]error {
	return map[string]error{
		"unknown": enroll.ErrUnknown, "used": enroll.ErrUsed, "expired": enroll.ErrExpired,
		"tries": ratelimit.ErrTooManyTries, "name": ErrNameTaken, "request": ErrBadRequest,
	}
}

// Serve answers join requests on ln, whose connections are encrypted, until ctx ends or ln fails; it returns when
// all its goroutines have ended. A caller has callTimeout for its request and gets its answer within the same time;
// one beyond maxCallers sees only the end of its connection.
func (a *Admission) Serve(ctx context.Context, ln net.Listener) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { ln.Close() })
	defer stop()
	slots := make(chan struct{}, maxCallers)
	for {
		conn, err := ln.Accept()
		if ctx.Err() != nil {
			if err == nil {
				conn.Close()
			}
			return nil
		}
		if err != nil {
			return fmt.Errorf("accept join: %w", err)
		}
		select {
		case slots <- struct{}{}:
		default: // a flood; the caller tries again
			conn.Close()
			continue
		}
		wg.Go(func() {
			defer func() { <-slots }()
			a.serveConn(ctx, conn)
		})
	}
}

// serveConn answers one request. What goes wrong on the connection is the caller's to notice. A node may have been
// admitted although its answer does not get out: it asks again.
func (a *Admission) serveConn(ctx context.Context, conn net.Conn) {
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	var req JoinRequest
	if err := receive(conn, &req); err != nil {
		return
	}
	var out reply
	resp, err := a.Join(ctx, req)
	if err == nil {
		out.JoinResponse = &resp
	} else {
		out.Error = err.Error()
		for k, e := range kinds() {
			if errors.Is(err, e) {
				out.Kind = k
			}
		}
	}
	_ = json.NewEncoder(conn).Encode(out)
}

// receive reads one value, at most maxMessage bytes; what follows on the connection is nobody's.
func receive(r io.Reader, v any) error {
	return json.NewDecoder(io.LimitReader(r, maxMessage)).Decode(v)
}

// JoinConfig says who joins what.
type JoinConfig struct {
	Dir   string // of the new identity; must not hold one
	Token enroll.Token
	Node  cluster.NodeID
	Addrs map[string]string // IP of this node by name of network
	// Dial connects to the join service of a node with this TLS configuration,
	// which refuses all but the cluster that made the token.
	Dial func(context.Context, *tls.Config) (net.Conn, error)
}

// Join makes this node a member: it shows the token, stores the identity it gets durably in Dir and returns the
// configuration of the cluster. The key is made here and never leaves this node. Refusals keep their sentinel: those
// of enroll, ErrNameTaken and ErrBadRequest, ErrForeign of a cluster other than the token's. An error after the
// other side has admitted this node leaves it a member there without an identity here: the token is used, and the
// name is taken until it is removed.
func Join(ctx context.Context, cfg JoinConfig) (cluster.Config, error) {
	if err := checkName(cfg.Node); err != nil {
		return cluster.Config{}, err
	}
	if err := mustBeFree(cfg.Dir); err != nil {
		return cluster.Config{}, err
	}
	key, err := newKey()
	if err != nil {
		return cluster.Config{}, err
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader,
		&x509.CertificateRequest{Subject: pkix.Name{CommonName: string(cfg.Node)}}, key)
	if err != nil {
		return cluster.Config{}, fmt.Errorf("make certificate request: %w", err)
	}
	req := JoinRequest{Secret: cfg.Token.Secret, Node: cfg.Node, CSR: csr, Addrs: cfg.Addrs}
	resp, err := ask(ctx, cfg, req)
	if err != nil {
		return cluster.Config{}, fmt.Errorf("join: %w", err)
	}
	if err := cfg.accept(resp, key); err != nil {
		return cluster.Config{}, fmt.Errorf("join: %w: %s is a member now: `duet cluster remove %s` on a member frees the "+
			"name", err, cfg.Node, cfg.Node)
	}
	return resp.Config, nil
}

// ask sends the request until there is an answer: the same request may be repeated, so a connection that dies
// half-way costs no token. What would come out the same again is not tried again: a refusal, and a cluster that is
// not the token's.
func ask(ctx context.Context, cfg JoinConfig, req JoinRequest) (resp JoinResponse, err error) {
	for range callTries {
		resp, err = askOnce(ctx, cfg, req)
		if err == nil || errors.Is(err, errRefused) || errors.Is(err, ErrForeign) || ctx.Err() != nil {
			break
		}
	}
	return resp, err
}

func askOnce(ctx context.Context, cfg JoinConfig, req JoinRequest) (JoinResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	conn, err := cfg.Dial(ctx, joinTLS(cfg.Token.Pin))
	if err != nil {
		return JoinResponse{}, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if err := json.NewEncoder(conn).Encode(req); err != nil {
		return JoinResponse{}, fmt.Errorf("send request: %w", err)
	}
	var in reply
	if err := receive(conn, &in); err != nil {
		return JoinResponse{}, fmt.Errorf("receive answer: %w: %s may be a member now: `duet cluster remove %s` on a member "+
			"frees the name", err, cfg.Node, cfg.Node)
	}
	if in.JoinResponse != nil && in.Error == "" {
		return *in.JoinResponse, nil
	}
	if kind, ok := kinds()[in.Kind]; ok {
		return JoinResponse{}, &refusal{kind, in.Error}
	}
	return JoinResponse{}, &refusal{errRefused, in.Error}
}

// refusal is an error of the other side in its own words.
type refusal struct {
	kind error
	text string
}

func (r *refusal) Error() string   { return refusedCause + ": " + r.text }
func (r *refusal) Unwrap() []error { return []error{r.kind, errRefused} }

// accept checks that the answer is whole and of the cluster of the token, and stores it. Everything is checked
// before anything is stored: an identity whose parts do not fit would be refused by Load for ever.
func (cfg JoinConfig) accept(resp JoinResponse, key *ecdsa.PrivateKey) error {
	ca, err := x509.ParseCertificate(resp.CACert)
	if err != nil {
		return fmt.Errorf("authority in answer: %w", err)
	}
	if fingerprint(ca) != cfg.Token.Pin {
		return fmt.Errorf("%w: the authority in the answer is not that of the token", ErrForeign)
	}
	caKey, err := decodeKey(resp.CAKey)
	if err != nil {
		return fmt.Errorf("authority key in answer: %w", err)
	}
	cert, err := x509.ParseCertificate(resp.NodeCert)
	if err != nil {
		return fmt.Errorf("certificate in answer: %w", err)
	}
	got, err := verifyNode([]*x509.Certificate{cert}, ca, x509.ExtKeyUsageServerAuth, time.Now())
	if err != nil {
		return fmt.Errorf("certificate in answer: %w", err)
	}
	if got != cfg.Node || !key.PublicKey.Equal(cert.PublicKey) || !caKey.PublicKey.Equal(ca.PublicKey) {
		return fmt.Errorf("%w: keys and certificates in the answer do not belong together", ErrForeign)
	}
	return settle(cfg.Dir, authority{ca, caKey}, key, resp.NodeCert)
}
