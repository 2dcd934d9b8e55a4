package console

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"duet/cluster"
	"duet/console/api"
)

// Times of the HTTP servers. Answers are small and no call waits for long work.
const (
	// headerTimeout and readTimeout are for a caller that sends slowly, writeTimeout is for the work and the answer
	// together, from the end of the header on: the zip of Support and CheckProtect take the longest.
	headerTimeout = 5 * time.Second
	readTimeout   = 30 * time.Second
	writeTimeout  = api.WorkTime
	idleTimeout   = 2 * time.Minute
	maxHeader     = 64 << 10        // bytes
	cutTimeout    = 2 * time.Second // for calls to end whose connection was cut
)

// Identity is this node's certificate and the check of others'. *pki.Identity is one.
type Identity interface {
	// Server accepts callers without a certificate and refuses those with one that is not of the cluster.
	Server() *tls.Config
	// Peer is the caller that has shown a certificate which Server's check accepted.
	Peer(tls.ConnectionState) (cluster.NodeID, bool)
}

// Config says what to serve and where. Handler and Log are needed.
type Config struct {
	Handler http.Handler
	// Socket is the path of the unix socket, mode 0600; empty serves none.
	Socket string
	// Listen is the address ("IP:port") of the TLS server; empty serves none.
	Listen   string
	Identity Identity // needed with Listen
	// TokenFile keeps the token that TLS callers show; it is made if missing. Needed with Listen.
	TokenFile string
	Log       *slog.Logger
}

// Server serves the API. Start and Stop are for one owner; Stop may be repeated. The two serve the same Handler,
// and either may be left out.
type Server struct {
	conf    Config         // does not change
	wg      sync.WaitGroup // servers
	calls   sync.WaitGroup // calls in flight
	servers []*http.Server
	addr    net.Addr // of TLS
	socket  *socket
}

// New makes a Server that serves nothing yet. The errors are those of c: nothing is opened.
func New(c Config) (*Server, error) {
	if c.Listen != "" && (c.Identity == nil || c.TokenFile == "") {
		return nil, errors.New("serve console: TLS wants an identity and a token file")
	}
	return &Server{conf: c}, nil
}

// Start opens the sockets and serves until Stop. If it fails nothing is left open. It does not wait for a first
// call. A Server is started once.
func (s *Server) Start() error {
	if err := s.start(); err != nil {
		s.Stop(canceled())
		return err
	}
	return nil
}

func (s *Server) start() error {
	if s.conf.Socket != "" {
		sock, err := openSocket(s.conf.Socket)
		if err != nil {
			return fmt.Errorf("serve console: %w", err)
		}
		s.socket = sock
		s.serve(sock, s.audit(s.conf.Handler, func(*http.Request) string { return "local" }))
	}
	if s.conf.Listen == "" {
		return nil
	}
	token, err := token(s.conf.TokenFile)
	if err != nil {
		return fmt.Errorf("serve console: %w", err)
	}
	ln, err := net.Listen("tcp", s.conf.Listen)
	if err != nil {
		return fmt.Errorf("serve console: %w", err)
	}
	s.addr = ln.Addr()
	g := guard{token: token, peer: s.conf.Identity.Peer}
	s.serve(tls.NewListener(ln, tlsConfig(s.conf.Identity)), g.only(s.audit(s.conf.Handler, g.who)))
	return nil
}

// Addr is where TLS is served, nil if it is not. It is known once Start has returned.
func (s *Server) Addr() net.Addr { return s.addr }

// serve runs one HTTP server, which closes ln when it ends. A server that ends by itself is only logged: the other
// one goes on.
func (s *Server) serve(ln net.Listener, h http.Handler) {
	srv := &http.Server{
		Handler:           s.counted(h),
		ReadHeaderTimeout: headerTimeout, ReadTimeout: readTimeout, WriteTimeout: writeTimeout, IdleTimeout: idleTimeout,
		MaxHeaderBytes: maxHeader,
		ErrorLog:       slog.NewLogLogger(s.conf.Log.Handler(), slog.LevelDebug), // every port scan would be a warning
	}
	s.servers = append(s.servers, srv)
	s.wg.Go(func() {
		if err := srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			s.conf.Log.Error("console no longer serves", "on", ln.Addr().String(), "err", err)
		}
	})
}

// Stop lets the calls in flight end until ctx does, then cuts them, and returns
// when nothing is served any more. The servers are stopped one after the other, so the last may get what is left of
// the time. The socket's path goes first. That connections were cut is no error; a call that goes on all the same is.
func (s *Server) Stop(ctx context.Context) error {
	var errs []error
	if s.socket != nil {
		errs = append(errs, s.socket.remove())
		s.socket = nil
	}
	for _, srv := range s.servers {
		if err := srv.Shutdown(ctx); err != nil {
			errs = append(errs, srv.Close())
		}
	}
	s.servers = nil
	s.wg.Wait()
	errs = append(errs, s.join())
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("stop console: %w", err)
	}
	return nil
}

// counted lets Stop know which calls are in flight.
func (s *Server) counted(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.calls.Add(1)
		defer s.calls.Done()
		h.ServeHTTP(w, r)
	})
}

// join waits until no call is in flight: one that was cut may still be at work on the node.
func (s *Server) join() error {
	ended := make(chan struct{})
	go func() { // ends with the last call
		s.calls.Wait()
		close(ended)
	}()
	select {
	case <-ended:
		return nil
	case <-time.After(cutTimeout):
		return errors.New("a call goes on although its connection was cut")
	}
}

// canceled is a context that leaves no time.
func canceled() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

// audit logs what changes something and who asked for it. The line comes after the call, with its status; a call
// that panics has none. Requests that read are many and say nothing: they are left out.
func (s *Server) audit(h http.Handler, who func(*http.Request) string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet || r.Method == http.MethodHead {
			h.ServeHTTP(w, r)
			return
		}
		began := time.Now()
		rec := &recorder{ResponseWriter: w, status: http.StatusOK}
		h.ServeHTTP(rec, r)
		s.conf.Log.Info("request", "by", who(r), "from", r.RemoteAddr, "method", r.Method, "path", r.URL.Path,
			"status", rec.status, "took", time.Since(began).Round(time.Millisecond))
	})
}

// recorder remembers the status of an answer. An answer that sets none is 200, as in net/http.
type recorder struct {
	http.ResponseWriter
	status int
}

// WriteHeader remembers status.
func (r *recorder) WriteHeader(status int) {
	r.status = status
	r.ResponseWriter.WriteHeader(status)
}

// Unwrap lets http.ResponseController reach the connection.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }
