package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
)

// DefaultConnect is where the local node serves.
const DefaultConnect = "unix:///run/duet/duetd.sock"

// Options say where to connect and as whom. Over the socket only Connect counts: who may open it needs no token.
type Options struct {
	Connect   string // unix:///path or https://node:port; empty is DefaultConnect
	TokenFile string // bearer token, for https
	CAFile    string // PEM of the authority the node's certificate must be of; empty is the system's
}

// New makes a client; it does not connect yet. The files of o are read now: a token that is exchanged later takes
// another Client.
func New(o Options) (*Client, error) {
	if o.Connect == "" {
		o.Connect = DefaultConnect
	}
	u, err := url.Parse(o.Connect)
	if err != nil {
		return nil, fmt.Errorf("connect to %q: %w", o.Connect, err)
	}
	switch {
	case u.Scheme == "unix" && u.Host == "" && u.Path != "":
		return overSocket(u.Path), nil
	case u.Scheme == "https" && u.Host != "" && strings.Trim(u.Path, "/") == "":
		return overTLS(u.Host, o)
	}
	return nil, fmt.Errorf("connect to %q: say unix:///path/to/duetd.sock or https://node:port", o.Connect)
}

// overSocket speaks HTTP/1.1 over a unix socket; the name of the host in its requests means nothing.
func overSocket(path string) *Client {
	var d net.Dialer
	return &Client{
		base: "http://duetd", where: path, local: true,
		http: &http.Client{Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn,
				error) {
				return d.DialContext(ctx, "unix", path)
			},
			IdleConnTimeout: time.Minute,
		}},
	}
}

// onlyOf makes conf accept any node of the cluster whose CA is in roots. Its
// certificates name the node and no addresses, so the host's name is not compared.
func onlyOf(roots *x509.CertPool, conf *tls.Config) {
	conf.InsecureSkipVerify = true // replaced by VerifyConnection, which never is left out
	conf.VerifyConnection = func(st tls.ConnectionState) error {
		_, err := st.PeerCertificates[0].Verify(x509.VerifyOptions{
			Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		})
		return err
	}
}

// overTLS needs TLS 1.3, as the node does. Connecting and the handshake have 5 s each.
func overTLS(host string, o Options) (*Client, error) {
	conf := &tls.Config{MinVersion: tls.VersionTLS13}
	if o.CAFile != "" {
		pem, err := os.ReadFile(o.CAFile)
		if err != nil {
			return nil, fmt.Errorf("read CA: %w", err)
		}
		roots := x509.NewCertPool()
		if !roots.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("read CA: %s holds no certificate in PEM", o.CAFile)
		}
		onlyOf(roots, conf)
	}
	c := &Client{base: "https://" + host, where: host}
	if o.TokenFile != "" {
		b, err := os.ReadFile(o.TokenFile)
		if err != nil {
			return nil, fmt.Errorf("read token: %w", err)
		}
		if c.token = strings.TrimSpace(string(b)); c.token == "" {
			return nil, fmt.Errorf("read token: %s is empty", o.TokenFile)
		}
	}
	d := net.Dialer{Timeout: 5 * time.Second}
	c.http = &http.Client{Transport: &http.Transport{
		DialContext: d.DialContext, TLSClientConfig: conf, TLSHandshakeTimeout: 5 * time.Second,
		IdleConnTimeout: time.Minute, ForceAttemptHTTP2: true,
		// the token goes nowhere else
	}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return c, nil
}
