package nbd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"duet/blockrepl"
)

// ErrInUse is returned when another process listens on the socket, or that cannot be ruled out.
var ErrInUse = errors.New("socket is in use")

const (
	patience = 10 * time.Second // for the option phase of a client
	// grace is how long Close lets requests in flight be answered: a client that
	// got all its answers has nothing to repeat elsewhere.
	grace = time.Second
	// maxConns counts clients, and also ended connections with requests left in the volume: those still hold memory.
	maxConns = 64
	// acceptPause keeps a process without free descriptors from spinning.
	acceptPause = 100 * time.Millisecond
)

// Peer is the process at the other end of a unix socket, as the kernel knows it: who it was when it connected.
type Peer struct {
	PID int // as this process's namespace numbers it; 0 if it is outside
	UID uint32
}

// Keeper keeps the listening sockets of Servers when these end, so that a client that connects while there is none
// waits for the next one instead of being refused.
type Keeper interface {
	// Take returns a listener on the socket that is kept for path, or nil if there is none that path leads to. The caller
	// closes it; the socket is kept on.
	Take(path string) *net.UnixListener
	// Keep keeps the socket of ln, whose file lies at path: it listens on when ln is closed. On an error the socket
	// works as long as ln does.
	Keep(path string, ln *net.UnixListener) error
}

// Options describe a Server. Exactly one of Socket and Loopback is set.
type Options struct {
	// Socket is the path of the unix socket to make. Only its owner may connect: this
	// process's user, or who owned the socket that a server before left there, so that a
	// client that was let in can come back.
	Socket string
	// Keeper has the socket of a Server before this one, or gets that of this one; nil: it ends with the Server, and a
	// client that connects before the next one listens is refused.
	Keeper Keeper
	// Admit returns nil if a client of the socket may use the volume; nil: whoever can connect. It runs on a goroutine of
	// the client, before a byte is exchanged; Close waits for it.
	Admit    func(Peer) error
	Loopback string // for measurements: a TCP address such as 127.0.0.1:0
	Name     string // of the export; clients may also ask for ""
	Log      *slog.Logger
}

// Server offers one volume. It is a blockrepl.Frontend. Its methods may be called by several goroutines, but Serve
// once.
type Server struct {
	opts Options
	pool chunkPool

	mu     sync.Mutex
	ln     net.Listener
	conns  map[*session]struct{}
	closed bool
	done   chan struct{}  // closed by Close
	all    sync.WaitGroup // of clients; none is added once closed is set
}

// session is a client as the Server sees it; Server.mu guards out.
type session struct {
	nc  net.Conn
	out *outbox // nil during the option phase
}

var _ blockrepl.Frontend = (*Server)(nil)

// New returns a Server that does nothing yet.
func New(o Options) *Server {
	return &Server{opts: o, conns: make(map[*session]struct{}), done: make(chan struct{})}
}

// Endpoint is the path of the socket, or the TCP address, which is complete after Listen.
func (s *Server) Endpoint() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.opts.Loopback != "" && s.ln != nil {
		return s.ln.Addr().String()
	}
	return s.opts.Socket + s.opts.Loopback
}

// Listen makes the socket or takes over the one that is kept, so that clients can connect and wait for Serve. Serve
// does it if nobody did. A socket left over by a dead process is replaced; one that is served is ErrInUse. After Close
// it is net.ErrClosed.
func (s *Server) Listen() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return net.ErrClosed
	}
	if s.ln != nil {
		return nil
	}
	var err error
	if s.opts.Loopback != "" {
		s.ln, err = listenLoopback(s.opts.Loopback)
	} else {
		s.ln, err = s.listenKept()
	}
	if err != nil {
		s.ln = nil
		return fmt.Errorf("offer volume: %w", err)
	}
	return nil
}

// listenKept uses the socket that is kept, or makes one and has it kept. One that cannot be kept does its duty
// all the same.
func (s *Server) listenKept() (net.Listener, error) {
	if s.opts.Keeper != nil {
		if ln := s.opts.Keeper.Take(s.opts.Socket); ln != nil {
			return ln, nil
		}
	}
	ln, err := listenSocket(s.opts.Socket)
	if err != nil {
		return nil, err
	}
	if s.opts.Keeper != nil {
		if err := s.opts.Keeper.Keep(s.opts.Socket, ln); err != nil {
			s.opts.Log.Warn("the socket of a volume ends with its server", "endpoint", s.opts.Socket, "err", err)
		}
	}
	return ln, nil
}

func listenLoopback(addr string) (net.Listener, error) {
	tcp, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil {
		return nil, err
	}
	if !tcp.IP.IsLoopback() {
		return nil, fmt.Errorf("listen on %s: not a loopback address, and NBD here has no TLS", addr)
	}
	return net.ListenTCP("tcp", tcp)
}

// listenSocket makes the socket at path. Whether another process serves the one that is there is found out by
// connecting to it, which that process sees as a client that leaves at once. Only being refused proves that there is
// none: one that is too busy for another client lives.
func listenSocket(path string) (*net.UnixListener, error) {
	var owner os.FileInfo
	if info, err := os.Lstat(path); err == nil {
		if info.Mode()&os.ModeSocket == 0 {
			return nil, fmt.Errorf("listen on %s: a file that is no socket is in the way", path)
		}
		probe, err := net.Dial("unix", path)
		switch {
		case err == nil:
			probe.Close()
			return nil, fmt.Errorf("listen on %s: %w", path, ErrInUse)
		case !deserted(err):
			return nil, fmt.Errorf("listen on %s: %w: %w", path, ErrInUse, err)
		}
		owner = info
	}
	// It is made under another name, so that whoever finds it can connect: a client that is
	// refused once waits before it tries again.
	made := path + ".new"
	if err := os.Remove(made); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	lc := net.ListenConfig{Control: ownerOnly}
	bound, err := lc.Listen(context.Background(), "unix", made)
	if err != nil {
		return nil, err
	}
	ln := bound.(*net.UnixListener)
	// What is left there says who may connect to the next one.
	ln.SetUnlinkOnClose(false)
	err = os.Chmod(made, 0o600)
	if err == nil && owner != nil {
		err = inherit(made, owner)
	}
	if err == nil {
		err = os.Rename(made, path)
	}
	if err != nil {
		return nil, errors.Join(err, ln.Close(), os.Remove(made))
	}
	return ln, nil
}

// Serve answers clients from q until Close; of a q that is a blockrepl.Mapper it tells the
// holes. It returns after the last client's requests in flight were answered or its connection was cut; nil after
// Close. An error is one of Listen. A client that cannot be accepted is logged and no reason to end: the descriptors
// of a busy process come back.
func (s *Server) Serve(q blockrepl.Queue) error {
	if err := s.Listen(); err != nil {
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		return err
	}
	defer s.all.Wait()
	for {
		nc, err := s.ln.Accept()
		select {
		case <-s.done:
			if err == nil {
				nc.Close()
			}
			return nil
		default:
		}
		if err == nil {
			s.start(nc, q)
			continue
		}
		s.opts.Log.Error("cannot accept an nbd client", "endpoint", s.Endpoint(), "err", err)
		select {
		case <-s.done:
			return nil
		case <-time.After(acceptPause):
		}
	}
}

// start serves one client on a goroutine of its own.
func (s *Server) start(nc net.Conn, q blockrepl.Queue) {
	one := &session{nc: nc}
	s.mu.Lock()
	full := len(s.conns) >= maxConns
	if !full && !s.closed {
		s.conns[one] = struct{}{}
		s.all.Add(1)
	}
	refused := full || s.closed
	s.mu.Unlock()
	if refused {
		nc.Close()
		if full {
			s.opts.Log.Warn("nbd client refused", "endpoint", s.Endpoint(), "why", "too many connections", "limit", maxConns)
		}
		return
	}
	go func() {
		defer s.all.Done()
		if err := s.client(one, q); err != nil {
			s.opts.Log.Warn("nbd connection ended", "endpoint", s.Endpoint(), "err", err)
		}
	}()
}

// client is the life of one connection, on its goroutine. Its error is worth a line in the log.
func (s *Server) client(one *session, q blockrepl.Queue) error {
	defer s.forget(one)
	if err := s.admit(one.nc); err != nil {
		one.nc.Close()
		return s.quiet(err)
	}
	holes, mapped := q.(blockrepl.Mapper)
	h := &negotiation{name: s.opts.Name, size: q.Size(), mapped: mapped}
	if err := negotiate(one.nc, h, patience); err != nil {
		one.nc.Close()
		return s.quiet(err)
	}
	l, err := newLink(one.nc)
	if err != nil {
		one.nc.Close()
		return err
	}
	c := &conn{q: q, size: uint64(q.Size()), out: newOutbox(l, &s.pool, h.structured)}
	if h.alloc {
		c.dev = holes
	}
	s.mu.Lock()
	one.out = c.out
	closed := s.closed
	s.mu.Unlock()
	if closed {
		l.endRead() // Close has looked at this session before it had an outbox
	}
	return s.quiet(c.serve())
}

// admit refuses a process that the volume is not for. A client of the loopback address is not asked: it is for
// measurements.
func (s *Server) admit(nc net.Conn) error {
	unixConn, ok := nc.(*net.UnixConn)
	if s.opts.Admit == nil || !ok {
		return nil
	}
	peer, err := peerOf(unixConn)
	if err == nil {
		err = s.opts.Admit(peer)
	}
	if err != nil {
		return fmt.Errorf("client refused: %w", err)
	}
	return nil
}

// forget frees the place of a client, when its last request left the volume; that may be long after its connection has
// ended, on a goroutine of the volume.
func (s *Server) forget(one *session) {
	remove := func() {
		s.mu.Lock()
		delete(s.conns, one)
		s.mu.Unlock()
	}
	if one.out == nil || one.out.whenEmpty(remove) {
		remove()
	}
}

// quiet hides what is no fault: a client that leaves early, and everything while closing.
func (s *Server) quiet(err error) error {
	select {
	case <-s.done:
		return nil
	default:
	}
	if errors.Is(err, errDone) || errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// Close makes Serve return and leaves the socket's file, and the socket to its Keeper: no client is accepted and no
// request is read any more; those in flight have a second to be answered, then connections are cut.
// It waits for that.
func (s *Server) Close() error {
	s.mu.Lock()
	if !s.closed {
		s.closed = true
		close(s.done)
		if s.ln != nil {
			s.ln.Close()
		}
		s.endLocked(func(o *outbox) { o.link.endRead() })
	}
	s.mu.Unlock()
	cut := time.AfterFunc(grace, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.endLocked(func(o *outbox) { o.fail(net.ErrClosed) })
	})
	defer cut.Stop()
	s.all.Wait()
	return nil
}

// endLocked ends clients in the option phase, which have asked for nothing yet, and does end to the others. s.mu is
// held.
func (s *Server) endLocked(end func(*outbox)) {
	for one := range s.conns {
		if one.out == nil {
			one.nc.Close()
		} else {
			end(one.out)
		}
	}
}
