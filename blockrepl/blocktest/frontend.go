package blocktest

import (
	"bytes"
	"io"
	"testing"
	"time"

	"duet/blockrepl"
)

// Client is a simple client of a Frontend's protocol: one request at a time. Its
// errors are Refused for an error the frontend answered, anything else when the
// connection is gone. The difference is what a guest sees: a refused write is an I/O error
// in its file system, a lost connection is repeated by the hypervisor.
type Client interface {
	io.ReaderAt
	io.WriterAt
	Flush() error
	io.Closer
}

// Refused is the error of a Client whose request was answered with an error. It is returned as a value, unwrapped.
type Refused struct{ Code uint32 } // the number of the protocol

// Error says what was answered.
func (r Refused) Error() string { return "request refused" }

// HandQueue is a Queue whose requests the test completes by hand, in any order and from any goroutine.
type HandQueue struct {
	Requests chan *blockrepl.Request // in the order of Submit
}

// NewHandQueue returns a Queue of DeviceSize bytes that takes up to depth requests. One more makes Submit wait, which
// no Queue may do: depth has to suffice for the test.
func NewHandQueue(depth int) *HandQueue {
	return &HandQueue{Requests: make(chan *blockrepl.Request, depth)}
}

// Submit passes r to the test.
func (q *HandQueue) Submit(r *blockrepl.Request) { q.Requests <- r }

// Kick does nothing.
func (q *HandQueue) Kick() {}

// Size is DeviceSize.
func (q *HandQueue) Size() int64 { return DeviceSize }

// Next returns the next request, which the test has to complete.
func (q *HandQueue) Next(t *testing.T) *blockrepl.Request {
	t.Helper()
	select {
	case r := <-q.Requests:
		return r
	case <-time.After(patience):
		t.Fatal("no request came")
		return nil
	}
}

// Finish completes r as a volume does: with a CompleteBatch behind it. Afterwards r is the frontend's again.
func Finish(r *blockrepl.Request, err error) { finish(r, err) }

// FrontendParts is what the suite of blockrepl.Frontend needs of one. Both functions end with the test what they
// made, but for the Client, which the suite closes.
type FrontendParts struct {
	New  func(t *testing.T) blockrepl.Frontend // not serving; clients can connect once Serve was called
	Dial func(t *testing.T, endpoint string) Client
}

// Frontend runs the suite of blockrepl.Frontend. What a hostile client can do is left to the protocol's own tests.
func Frontend(t *testing.T, p FrontendParts) {
	for _, c := range []struct {
		name string
		test func(t *testing.T, p FrontendParts)
	}{
		{"close without serve", frontendUnused},
		{"data", frontendData},
		{"errors are answered", frontendErrors},
		{"close answers what is in flight", frontendDrains},
		{"a closed volume is not answered", frontendVolumeClosed},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, p) })
	}
}

// serve runs f until the test ends and returns the channel of Serve's result. Closing again what the test has closed
// already is part of the contract.
func serve(t *testing.T, f blockrepl.Frontend, q blockrepl.Queue) <-chan error {
	served := make(chan error, 1)
	gone := make(chan struct{})
	go func() { served <- f.Serve(q); close(gone) }()
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
		<-gone
	})
	return served
}

// mustReturn fails unless Serve ends soon, and without an error, as after Close.
func mustReturn(t *testing.T, served <-chan error) {
	t.Helper()
	select {
	case err := <-served:
		if err != nil {
			t.Errorf("serve: %v", err)
		}
	case <-time.After(patience):
		t.Fatal("Serve did not return")
	}
}

// frontendUnused: a module that stops before its VM ever ran closes a frontend that nobody served.
func frontendUnused(t *testing.T, p FrontendParts) {
	f := p.New(t)
	for range 2 {
		if err := f.Close(); err != nil {
			t.Fatalf("close: %v", err)
		}
	}
	if err := f.Serve(NewHandQueue(1)); err != nil {
		t.Errorf("serve after close: %v", err)
	}
}

// frontendData has two connections to one volume: a flush on one covers what the other has written. A request that is
// refused ends no connection.
func frontendData(t *testing.T, p FrontendParts) {
	f := p.New(t)
	q := StartQueue(newRAM(), 2)
	t.Cleanup(func() { q.Close() })
	served := serve(t, f, q)
	a, b := p.Dial(t, f.Endpoint()), p.Dial(t, f.Endpoint())
	want := bytes.Repeat([]byte("0123456789abcdef"), 1<<20/16)
	if _, err := a.WriteAt(want, 8192); err != nil {
		t.Fatal(err)
	}
	if err := b.Flush(); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(want)+1024)
	if _, err := b.ReadAt(got, 8192-512); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got[512:512+len(want)], want) || len(bytes.Trim(got[:512], "\x00")) != 0 {
		t.Error("read differs from what the other client wrote")
	}
	if _, err := a.ReadAt(got[:512], DeviceSize); err == nil {
		t.Error("read beyond the end")
	}
	if _, err := a.ReadAt(got[:512], 0); err != nil {
		t.Errorf("after a refused read: %v", err)
	}
	a.Close()
	b.Close()
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	mustReturn(t, served)
}

// frontendErrors: any error but ErrClosed is answered, so that the guest learns of it.
func frontendErrors(t *testing.T, p FrontendParts) {
	f, q := p.New(t), NewHandQueue(4)
	serve(t, f, q)
	c := p.Dial(t, f.Endpoint())
	defer c.Close()
	for name, do := range map[string]func() error{
		"read":  func() error { _, err := c.ReadAt(make([]byte, 4096), 0); return err },
		"write": func() error { _, err := c.WriteAt(make([]byte, 4096), 0); return err },
		"flush": c.Flush,
	} {
		done := make(chan error, 1)
		go func() { done <- do() }()
		Finish(q.Next(t), ErrTest)
		if err, ok := (<-done).(Refused); !ok {
			t.Errorf("%s: %v, want an error answered", name, err)
		}
	}
}

// frontendDrains: a client that got all its answers has nothing to repeat elsewhere. The 20 ms prove only that
// Close does not return at once.
func frontendDrains(t *testing.T, p FrontendParts) {
	f, q := p.New(t), NewHandQueue(4)
	served := serve(t, f, q)
	c := p.Dial(t, f.Endpoint())
	defer c.Close()
	done := make(chan error, 1)
	go func() { _, err := c.WriteAt(make([]byte, 4096), 0); done <- err }()
	r := q.Next(t)
	closed := make(chan error, 1)
	go func() { closed <- f.Close() }()
	select {
	case <-served:
		t.Fatal("Serve returned with a request in flight and its connection open")
	case <-closed:
		t.Fatal("Close returned with a request in flight and its connection open")
	case <-time.After(20 * time.Millisecond):
	}
	Finish(r, nil)
	if err := <-done; err != nil {
		t.Errorf("the request in flight was not answered: %v", err)
	}
	mustReturn(t, served)
	if err := <-closed; err != nil {
		t.Errorf("close: %v", err)
	}
}

// frontendVolumeClosed: ErrClosed must not become an I/O error in the guest, which would remount its file system
// read-only in a failover. The connection is dropped instead; other connections go on, as their requests may be
// served.
func frontendVolumeClosed(t *testing.T, p FrontendParts) {
	f, q := p.New(t), NewHandQueue(4)
	serve(t, f, q)
	c, other := p.Dial(t, f.Endpoint()), p.Dial(t, f.Endpoint())
	defer c.Close()
	defer other.Close()
	done := make(chan error, 1)
	go func() { _, err := c.WriteAt(make([]byte, 4096), 0); done <- err }()
	Finish(q.Next(t), blockrepl.ErrClosed)
	err := <-done
	if _, refused := err.(Refused); err == nil || refused {
		t.Errorf("a request of a closed volume was answered: %v", err)
	}
	go func() { done <- other.Flush() }()
	Finish(q.Next(t), nil)
	if err := <-done; err != nil {
		t.Errorf("the other connection suffered: %v", err)
	}
}

// ram is the least Device there is: no holes, no fast reads, and no locks, as the queue over it keeps writes of one
// range apart.
type ram struct{ b []byte }

func newRAM() *ram { return &ram{make([]byte, DeviceSize)} }

func (d *ram) ReadAt(p []byte, off int64) (int, error)  { return copy(p, d.b[off:]), nil }
func (d *ram) WriteAt(p []byte, off int64) (int, error) { return copy(d.b[off:], p), nil }
func (d *ram) Discard(off, n int64) error               { clear(d.b[off : off+n]); return nil }
func (d *ram) Zero(off, n int64) error                  { clear(d.b[off : off+n]); return nil }
func (d *ram) Flush() error                             { return nil }
func (d *ram) Size() int64                              { return int64(len(d.b)) }
