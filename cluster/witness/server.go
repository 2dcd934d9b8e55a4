package witness

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"duet/cluster/enroll"
	"duet/cluster/ratelimit"
)

// Store keeps the memory of a witness as JSON values. Several goroutines call it, but never two at once for one key
// of a vote. An error of Save or Delete leaves open which value a later Load finds: the old one or the new one.
type Store interface {
	// Load reads the value at key into v; false if there is none.
	Load(key string, v any) (bool, error)
	// Save writes a value; it survives power loss when Save returns nil.
	Save(key string, v any) error
	// Delete removes a value, durably as Save; one that is not there is no error.
	Delete(key string) error
	// Keys lists the keys that begin with prefix.
	Keys(prefix string) ([]string, error)
}

// Config says what a Server works with; Dir and Store are needed.
type Config struct {
	Dir     string // of the witness's key, made at the first start
	Store   Store  // for this Server alone
	Version string // of the program, for Hello
	Log     *slog.Logger
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// Server is a witness. Its methods may be called by several goroutines.
type Server struct {
	cfg Config
	log *slog.Logger
	id  identity

	desk *enroll.Desk // registering and forgetting take turns

	mu      sync.RWMutex
	tenants map[string]*tenant // by ID
}

// New returns a witness with the key in cfg.Dir, and makes that key if it is the first start. It fails if what the
// store has of clusters and their nodes is damaged; votes are read when they are asked for.
func New(cfg Config) (*Server, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	id, err := loadIdentity(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("load key of the witness: %w", err)
	}
	tenants, err := loadTenants(cfg.Store)
	if err != nil {
		return nil, fmt.Errorf("read store of the witness: %w", err)
	}
	s := &Server{cfg: cfg, log: cfg.Log, id: id, tenants: tenants}
	s.desk = enroll.NewDesk(enroll.Config{Store: tokens{cfg.Store}, Prefix: tokenPrefix, Pin: id.key,
		Again: "make another on the witness", Now: func() time.Time { return s.cfg.Now() }})
	return s, nil
}

// Fingerprint is what clusters know this witness by.
func (s *Server) Fingerprint() Fingerprint { return s.id.key }

// conns are the connections that callers may have. A node needs one, and a second one for a
// moment; a stranger can hold some, and not for long.
var conns = ratelimit.Limits{All: 256, Each: 32}

// What callers may take besides.
const (
	maxStreams    = 128                    // calls under way on one connection
	headerTimeout = 5 * time.Second        // also for an answer to an HTTP/2 ping
	readTimeout   = 10 * time.Second       // of a whole request
	writeTimeout  = 30 * time.Second       // of an answer, the time in the store included
	idleTimeout   = 3 * time.Minute        // a node says hello sooner than that
	farewell      = 100 * time.Millisecond // for answers that were written and are not yet on the wire
)

// Serve answers calls on ln, which is not encrypted yet, until ctx ends or ln fails. It closes ln, and returns when
// the last call was answered. Calls that come after ctx has ended are refused with ErrStopping, which is no vote;
// connections that are then still open are cut after farewell.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	g := &gate{}
	srv := &http.Server{
		Handler:           s.routes(g),
		TLSConfig:         s.id.serverTLS(),
		ReadHeaderTimeout: headerTimeout, ReadTimeout: readTimeout, WriteTimeout: writeTimeout, IdleTimeout: idleTimeout,
		MaxHeaderBytes: 8 << 10,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: maxStreams, MaxReceiveBufferPerConnection: 64 << 10, MaxReceiveBufferPerStream: 64 << 10,
			SendPingTimeout: idleTimeout / 4, PingTimeout: headerTimeout,
		},
		ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug), // port scans and the like
	}
	failed := make(chan error, 1)
	go func() { failed <- srv.ServeTLS(ratelimit.Listener(ln, conns), "", "") }()
	var err error
	select {
	case err = <-failed:
		err = fmt.Errorf("serve witness: %w", err)
	case <-ctx.Done():
		defer func() { <-failed }()
	}
	g.close()
	// The answers of the last calls may still be on their way out.
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), farewell)
	defer cancel()
	if srv.Shutdown(last) != nil {
		srv.Close() // what it says of ln was said above or does not matter any more
	}
	return err
}

// gate lets calls in until it is closed.
type gate struct {
	mu     sync.Mutex
	closed bool
	calls  sync.WaitGroup
}

// enter reports whether the call may go on; leave follows then. Add and close share a lock, so that Wait never meets
// an Add from zero.
func (g *gate) enter() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.closed {
		g.calls.Add(1)
	}
	return !g.closed
}

func (g *gate) leave() { g.calls.Done() }

// close waits for the calls under way.
func (g *gate) close() {
	g.mu.Lock()
	g.closed = true
	g.mu.Unlock()
	g.calls.Wait()
}
