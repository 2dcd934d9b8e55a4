package blockrepl

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	crand "crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"math/big"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"duet/blockrepl/wire"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// disk is a Device in memory that loses unflushed sectors in a crash.
type disk struct {
	mu       sync.Mutex
	data     []byte
	durable  []byte
	dirty    []bool // by sector
	fail     error  // of writes and flushes
	badReads bool
	rot      map[int64]bool // sectors that cannot be read until they are written
	gate     func()         // called before each write, without the lock
	reads    int
}

func newDisk(size int64) *disk {
	return &disk{data: make([]byte, size), durable: make([]byte, size), dirty: make([]bool, size/Sector)}
}

func (d *disk) ReadAt(p []byte, off int64) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.reads++
	if d.badReads {
		return 0, errBadSector
	}
	for s := off / Sector; s*Sector < off+int64(len(p)); s++ {
		if d.rot[s] {
			return 0, errBadSector
		}
	}
	return copy(p, d.data[off:]), nil
}

func (d *disk) WriteAt(p []byte, off int64) (int, error) {
	if d.gate != nil {
		d.gate()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.fail != nil {
		return 0, d.fail
	}
	d.badReads = false
	for s := off / Sector; s*Sector < off+int64(len(p)); s++ {
		d.dirty[s] = true
		delete(d.rot, s)
	}
	return copy(d.data[off:], p), nil
}

var errBadSector = errors.New("bad sector")

// spoil makes the sector at off unreadable, and what was there is gone.
func (d *disk) spoil(off int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.rot == nil {
		d.rot = map[int64]bool{}
	}
	d.rot[off/Sector] = true
	copy(d.data[off:off+Sector], fill(0xee, Sector))
}

func (d *disk) Discard(off, n int64) error { return d.Zero(off, n) }

func (d *disk) Zero(off, n int64) error {
	_, err := d.WriteAt(make([]byte, n), off)
	return err
}

func (d *disk) Flush() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.fail != nil {
		return d.fail
	}
	for s, dirty := range d.dirty {
		if dirty {
			copy(d.durable[s*Sector:(s+1)*Sector], d.data[s*Sector:])
		}
	}
	clear(d.dirty)
	return nil
}

func (d *disk) Size() int64 { return int64(len(d.data)) }

// crash loses power: each unflushed sector survives or not.
func (d *disk) crash(rng *rand.Rand) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for s, dirty := range d.dirty {
		if dirty && rng.IntN(2) == 0 {
			copy(d.durable[s*Sector:(s+1)*Sector], d.data[s*Sector:])
		}
	}
	clear(d.dirty)
	copy(d.data, d.durable)
}

// quiet reports that a power loss would lose nothing.
func (d *disk) quiet() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return !slices.Contains(d.dirty, true)
}

func (d *disk) bytes() []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	return bytes.Clone(d.data)
}

// copyOf is one node's copy of the volume: what survives a restart of its process.
type copyOf struct {
	node string
	dev  Device
	log  *testLog
}

// testLog is a DirtyLog in memory; blockrepl's tests cannot import memlog, which
// imports blockrepl.
type testLog struct {
	mu      sync.Mutex
	entries map[uint32]Entry
	lineage *Lineage
	queue   chan func()
	commits int
	fail    error
	held    chan struct{} // not nil: commits wait for it
}

func newTestLog(t testing.TB) *testLog {
	l := &testLog{entries: map[uint32]Entry{}, queue: make(chan func(), 1<<16)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for f := range l.queue {
			f()
		}
	}()
	t.Cleanup(func() { close(l.queue); <-done })
	return l
}

func (l *testLog) Commit(entries []Entry, lineage *Lineage, done func(error)) {
	l.queue <- func() {
		l.mu.Lock()
		held := l.held
		l.mu.Unlock()
		if held != nil {
			<-held
		}
		l.mu.Lock()
		err := l.fail
		if err == nil {
			l.commits++
			for _, e := range entries {
				if !e.Hot && e.Dirty == 0 {
					delete(l.entries, e.Extent)
				} else {
					l.entries[e.Extent] = e
				}
			}
			if lineage != nil {
				c := *lineage
				l.lineage = &c
			}
		}
		l.mu.Unlock()
		done(err)
	}
}

// stick makes commits wait until the function it returns is called.
func (l *testLog) stick() (free func()) {
	c := make(chan struct{})
	l.mu.Lock()
	l.held = c
	l.mu.Unlock()
	return sync.OnceFunc(func() {
		l.mu.Lock()
		l.held = nil
		l.mu.Unlock()
		close(c)
	})
}

func (l *testLog) Load() ([]Entry, *Lineage, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []Entry
	for _, e := range l.entries {
		out = append(out, e)
	}
	slices.SortFunc(out, func(a, b Entry) int { return int(a.Extent) - int(b.Extent) })
	if l.lineage == nil {
		return out, nil, nil
	}
	c := *l.lineage
	return out, &c, nil
}

// pair is a volume on two nodes.
type pair struct {
	t      testing.TB
	a, b   *copyOf
	p      *Primary
	s      *Secondary
	events chan Event
	serve  sync.WaitGroup
	cut    func() // ends the present connection
	dial   func() (net.Conn, net.Conn)
	budget time.Duration
	local  time.Duration
	logger *slog.Logger
	served chan error // the ends of sessions
	hot    int
}

func newPair(t testing.TB, size int64) *pair {
	q := &pair{t: t, dial: net.Pipe, budget: 20 * time.Second, served: make(chan error, 1000)}
	q.a = &copyOf{node: "alpha", dev: newDisk(size), log: newTestLog(t)}
	q.b = &copyOf{node: "beta", dev: newDisk(size), log: newTestLog(t)}
	t.Cleanup(func() { q.stop() })
	return q
}

func (q *pair) stop() {
	if q.p != nil {
		q.p.Close()
	}
	if q.s != nil {
		q.s.Close()
	}
	q.serve.Wait()
}

// primary starts a Primary on q.a.
func (q *pair) primary() *Primary {
	q.t.Helper()
	q.events = make(chan Event, 1000)
	events := q.events
	p, err := NewPrimary(PrimaryConfig{Volume: "v", Identity: "id", Node: q.a.node, Device: q.a.dev, Log: q.a.log,
		HotExtents: q.hot, StallBudget: q.budget, LocalBudget: q.local, Logger: q.logger,
		Events: func(e Event) { events <- e }})
	if err != nil {
		q.t.Fatal(err)
	}
	p.Start()
	q.p = p
	return p
}

// secondary makes a Secondary on q.b.
func (q *pair) secondary() *Secondary {
	q.t.Helper()
	return q.reopen(false)
}

// reopen is secondary, in the process that had another one before.
func (q *pair) reopen(intact bool) *Secondary {
	q.t.Helper()
	s, err := NewSecondary(SecondaryConfig{Volume: "v", Identity: "id", Node: q.b.node, Device: q.b.dev, Log: q.b.log,
		LocalBudget: q.local, Logger: q.logger, Intact: intact})
	if err != nil {
		q.t.Fatal(err)
	}
	q.s = s
	return s
}

// attach connects the two.
func (q *pair) attach(epoch uint64, complete bool) error {
	near, far := q.dial()
	q.cut = func() { near.Close(); far.Close() }
	s := q.s
	q.serve.Add(1)
	go func() {
		defer q.serve.Done()
		c := wire.NewConn(far)
		hello, err := ReadHello(context.Background(), c)
		if err != nil {
			c.Close()
			return
		}
		q.served <- s.Serve(context.Background(), c, hello, complete)
	}()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	return q.p.Attach(ctx, wire.NewConn(near), epoch)
}

// connect brings an attached peer to Connected, as the engine does.
func (q *pair) connect(epoch uint64) {
	q.t.Helper()
	wantEvent[Drained](q)
	if q.p.Progress().State == Connected {
		return
	}
	if err := q.s.Complete(context.Background(), q.p.Ticket()); err != nil {
		q.t.Fatal(err)
	}
	if err := q.p.PeerComplete(); err != nil {
		q.t.Fatal(err)
	}
}

// up brings a new pair to Connected at epoch 1.
func (q *pair) up() *pair {
	q.t.Helper()
	q.primary()
	q.secondary()
	if err := q.p.GoAlone(1); err != nil {
		q.t.Fatal(err)
	}
	if err := q.attach(1, false); err != nil {
		q.t.Fatal(err)
	}
	q.connect(1)
	return q
}

// lose cuts the connection and waits until the primary has noticed.
func (q *pair) lose() {
	q.t.Helper()
	q.cut()
	wantEvent[PeerLost](q)
}

// wantEvent returns the next event of type E, skipping others.
func wantEvent[E Event](q *pair) E {
	q.t.Helper()
	timeout := time.After(20 * time.Second)
	for {
		select {
		case e := <-q.events:
			if e, ok := e.(E); ok {
				return e
			}
		case <-timeout:
			var e E
			q.t.Fatalf("no %T; volume: %+v", e, q.p.Progress())
		}
	}
}

// eventually waits for a condition.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !cond(); {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
		tick := time.NewTimer(time.Millisecond)
		<-tick.C
	}
}

// start submits a request and returns the channel of its result.
func (q *pair) start(r *Request) waiter {
	w := make(waiter, 1)
	r.By = w
	q.p.Submit(r)
	q.p.Kick()
	return w
}

func (q *pair) do(r *Request) error {
	q.t.Helper()
	select {
	case err := <-q.start(r):
		return err
	case <-time.After(20 * time.Second):
		q.t.Fatalf("request hangs; volume: %+v", q.p.Progress())
		return nil
	}
}

func write(off int64, data []byte) *Request {
	return &Request{Op: OpWrite, Off: off, Len: int64(len(data)), Data: data}
}

func (q *pair) write(off int64, data []byte) {
	q.t.Helper()
	if err := q.do(write(off, data)); err != nil {
		q.t.Fatal(err)
	}
}

func (q *pair) read(off, n int64) []byte {
	q.t.Helper()
	b := make([]byte, n)
	if err := q.do(&Request{Op: OpRead, Off: off, Len: n, Data: b}); err != nil {
		q.t.Fatal(err)
	}
	return b
}

func (q *pair) flush() {
	q.t.Helper()
	if err := q.do(&Request{Op: OpFlush}); err != nil {
		q.t.Fatal(err)
	}
}

// equal fails unless both copies are byte-identical.
func (q *pair) equal() {
	q.t.Helper()
	q.equalBytes(q.a.dev.(*disk).bytes(), q.b.dev.(*disk).bytes())
}

func (q *pair) equalBytes(a, b []byte) {
	q.t.Helper()
	for off := 0; off < len(a); off += RegionSize {
		if end := min(off+RegionSize, len(a)); !bytes.Equal(a[off:end], b[off:end]) {
			q.t.Fatalf("copies differ in the region at %d", off)
		}
	}
}

func fill(b byte, n int) []byte { return bytes.Repeat([]byte{b}, n) }

// waiter is the Completer of one request.
type waiter chan error

// Complete hands the result to whoever waits.
func (w waiter) Complete(_ *Request, err error) { w <- err }

// CompleteBatch does nothing.
func (w waiter) CompleteBatch() {}

// pending reports that a request has not completed.
func (w waiter) pending() bool {
	select {
	case err := <-w:
		w <- err
		return false
	default:
		return true
	}
}

func (q *pair) result(w waiter) error {
	q.t.Helper()
	select {
	case err := <-w:
		return err
	case <-time.After(20 * time.Second):
		q.t.Fatalf("request hangs; volume: %+v", q.p.Progress())
		return nil
	}
}

// loopback returns both ends of a TCP connection.
func loopback(t testing.TB) (net.Conn, net.Conn) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	near, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	far, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return near, far
}

// secured returns both ends of a TLS connection over TCP.
func secured(t testing.TB) (net.Conn, net.Conn) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), crand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour),
		DNSNames: []string{"duet"}}
	der, err := x509.CreateCertificate(crand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, _ := x509.ParseCertificate(der)
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	near, far := loopback(t)
	server := tls.Server(wire.Buffered(far), &tls.Config{
		Certificates:                []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
		DynamicRecordSizingDisabled: true})
	client := tls.Client(wire.Buffered(near),
		&tls.Config{RootCAs: pool, ServerName: "duet", DynamicRecordSizingDisabled: true})
	done := make(chan error, 1)
	go func() { done <- server.Handshake() }()
	if err := errors.Join(client.Handshake(), <-done); err != nil {
		t.Fatal(err)
	}
	return client, server
}
