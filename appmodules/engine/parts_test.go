package engine

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"slices"
	"sync"

	"duet/blockrepl"
	"duet/blockrepl/wire"
	"duet/cluster"
	"duet/vmmanager"
	"duet/vmmanager/fake"
)

// The parts of a pair that stand in for a disk, a frontend and the network.

// memStore is a Store that outlives the engine.
type memStore struct {
	mu   sync.Mutex
	vals map[string][]byte
	fail error
	hold chan struct{} // if not nil, no Save ends before it is closed
	read func() error  // if not nil, asked before each Load
}

// hang lets no Save end until the function it returns is called.
func (s *memStore) hang() (release func()) {
	hold := make(chan struct{})
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hold = hold
	return sync.OnceFunc(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.hold = nil
		close(hold)
	})
}

func (s *memStore) Load(key string, v any) (bool, error) {
	s.mu.Lock()
	read := s.read
	s.mu.Unlock()
	if read != nil {
		if err := read(); err != nil {
			return false, err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	b, ok := s.vals[key]
	if !ok {
		return false, nil
	}
	return true, json.Unmarshal(b, v)
}

func (s *memStore) Save(key string, v any) error {
	s.mu.Lock()
	hold := s.hold
	s.mu.Unlock()
	if hold != nil {
		<-hold
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil {
		return s.fail
	}
	b, err := json.Marshal(v)
	if err == nil {
		s.vals[key] = b
	}
	return err
}

// front is a Frontend whose guest is a goroutine of the fake hypervisor.
type front struct {
	mu    sync.Mutex
	s     *session // the last one
	q     blockrepl.Queue
	ready chan struct{} // closed while q is set
}

func newFront() *front { return &front{ready: make(chan struct{})} }

// session is one Serve of the front.
type session struct {
	f    *front
	done chan struct{}
	once sync.Once
}

func (s *session) Endpoint() string { return "memory" }

func (s *session) Serve(q blockrepl.Queue) error {
	s.f.mu.Lock()
	s.f.q, s.f.s = q, s
	close(s.f.ready)
	s.f.mu.Unlock()
	<-s.done
	s.f.mu.Lock()
	s.f.q, s.f.ready = nil, make(chan struct{})
	s.f.mu.Unlock()
	return nil
}

func (s *session) Close() error {
	s.once.Do(func() { close(s.done) })
	return nil
}

// last is the session that is served.
func (f *front) last() *session {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.s
}

// queue waits for a volume to be served, as QEMU waits for its NBD server.
func (f *front) queue(ctx context.Context) blockrepl.Queue {
	for ctx.Err() == nil {
		f.mu.Lock()
		q, ready := f.q, f.ready
		f.mu.Unlock()
		if q != nil {
			return q
		}
		select {
		case <-ready:
		case <-ctx.Done():
		}
	}
	return nil
}

// waiter completes one request synchronously.
type waiter chan error

func (w waiter) Complete(_ *blockrepl.Request, err error) { w <- err }
func (w waiter) CompleteBatch()                           {}

// do runs one request until the volume answers it; a volume that closes under it is
// retried on the next one, as a guest paused by its hypervisor does.
func (f *front) do(ctx context.Context, op blockrepl.Op, data []byte, off int64) error {
	for {
		q := f.queue(ctx)
		if q == nil {
			return ctx.Err()
		}
		done := make(waiter, 1)
		q.Submit(&blockrepl.Request{Op: op, Off: off, Len: int64(len(data)), Data: slices.Clone(data), By: done})
		go q.Kick() // it writes to the disk, which may hang; a guest can be ended all the same
		select {
		case err := <-done:
			if !errors.Is(err, blockrepl.ErrClosed) {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// slowHypervisor says nothing about the VM before hold is closed.
type slowHypervisor struct {
	*fake.Hypervisor
	hold <-chan struct{}
}

func (s slowHypervisor) State(ctx context.Context, name string) (vmmanager.State, error) {
	if s.hold != nil {
		select {
		case <-s.hold:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
	return s.Hypervisor.State(ctx, name)
}

// wireTo carries calls from one node to the engine of the other.
type wireTo struct {
	from *simNode
	to   cluster.NodeID
}

var errAway = errors.New("no route")

func (w wireTo) engine() (*Engine, error) {
	e := w.from.p.nodes[w.to].running()
	if e == nil || w.from.running() == nil || w.from.p.cut.Load() { // the dead do not speak
		return nil, errAway
	}
	return e, nil
}

func (w wireTo) Ask(ctx context.Context, a cluster.Ask) (cluster.Answer, error) {
	e, err := w.engine()
	if err != nil {
		return cluster.Answer{}, err
	}
	return e.OnAsk(ctx, a)
}

func (w wireTo) Handover(ctx context.Context, h Handover) error {
	e, err := w.engine()
	if err != nil {
		return err
	}
	return e.OnHandover(ctx, h)
}

func (w wireTo) Complete(ctx context.Context, c Complete) error {
	e, err := w.engine()
	if err != nil {
		return err
	}
	return e.OnComplete(ctx, c)
}

func (w wireTo) Tell(_ context.Context, s State) (State, error) {
	e, err := w.engine()
	if err != nil {
		return State{}, err
	}
	return e.OnTell(s), nil
}

func (w wireTo) Define(ctx context.Context, d Definition) error {
	e, err := w.engine()
	if err != nil {
		return err
	}
	return e.OnDefine(ctx, d)
}

func (w wireTo) Dial(context.Context) (net.Conn, error) {
	e, err := w.engine()
	if err != nil || w.from.p.data.Load() {
		return nil, errAway
	}
	near, far, err := tcpPair()
	if err != nil {
		return nil, err
	}
	to := w.from.p.nodes[w.to]
	for n, c := range map[*simNode]net.Conn{w.from: near, to: far} {
		n.mu.Lock()
		n.conns = append(n.conns, c)
		n.mu.Unlock()
	}
	go func() { // ends with the connection, which halt closes
		ctx := e.ctx
		conn := wire.NewConn(far)
		hello, err := blockrepl.ReadHello(ctx, conn)
		if err != nil {
			_ = conn.Close()
			return
		}
		_ = e.OnAttach(ctx, &Connection{conn, hello})
	}()
	return near, nil
}

func tcpPair() (near, far net.Conn, err error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	defer ln.Close()
	if near, err = net.Dial("tcp", ln.Addr().String()); err != nil {
		return nil, nil, err
	}
	if far, err = ln.Accept(); err != nil {
		near.Close()
	}
	return near, far, err
}
