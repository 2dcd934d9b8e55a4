package chaos

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"duet/testbed/check"
)

// Writer works on a volume wherever it is served: it holds a connection to the socket of each host that accepts
// one, as the guest of two hosts would if two hosts ran it. Several goroutines work for it; its methods may be
// called by any, but Pause, Sweep, History and Forget by one at a time.
type Writer struct {
	Volume string             // for messages
	begin  time.Time          // of its clock, on which all times of its history are
	stop   context.CancelFunc // closes all connections
	runs   sync.WaitGroup     // one for each host

	mu       sync.Mutex
	last     uint64            // newest value
	clients  int               // connections so far: each is another client of the history
	sessions map[*session]bool // those of the present history; true while it is connected
	paused   bool              // no request begins
	busy     int               // requests under way
	refusals []string          // answers with an error, of the present history
	initial  map[uint64]uint64 // what each page held when the history began
}

// errNoVolume is returned when no host serves the volume.
var errNoVolume = errors.New("no host serves the volume")

// NewWriter starts a writer of a volume; where finds its socket on a host. Close ends it. where is called again
// before each attempt, by the goroutine of that host; its error counts as a host that serves nothing.
func NewWriter(ctx context.Context, volume string, hosts []string, where func(host string) (string, error)) *Writer {
	ctx, stop := context.WithCancel(ctx)
	w := &Writer{Volume: volume, begin: time.Now(), stop: stop, sessions: map[*session]bool{},
		initial: map[uint64]uint64{}}
	for _, h := range hosts {
		w.runs.Go(func() { w.follow(ctx, h, func() (string, error) { return where(h) }) })
	}
	return w
}

// Close ends all connections and waits for their goroutines. Requests that are frozen end with their connection.
func (w *Writer) Close() {
	w.stop()
	w.runs.Wait()
}

// follow connects to one host again and again. A host that does not serve the volume has no socket, or one that
// takes no connection: it is tried twenty times a second.
func (w *Writer) follow(ctx context.Context, host string, where func() (string, error)) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		if path, err := where(); err == nil {
			if c, err := dialNBD(path); err == nil {
				w.session(ctx, host, c)
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// session works on one connection until it ends.
func (w *Writer) session(ctx context.Context, host string, c *conn) {
	defer context.AfterFunc(ctx, func() { c.Close() })()
	w.mu.Lock()
	w.clients++
	s := &session{w: w, host: host, id: w.clients, conn: c, proven: -1}
	w.sessions[s] = true
	w.mu.Unlock()
	s.work()
	w.mu.Lock()
	w.sessions[s] = false
	w.mu.Unlock()
}

func (w *Writer) now() int64 { return int64(time.Since(w.begin)) }

// value returns a value that was never written before.
func (w *Writer) value() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.last++
	return w.last
}

// enter counts a request that begins; false while the writer is paused. Every true is followed by leave.
func (w *Writer) enter() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.paused {
		return false
	}
	w.busy++
	return true
}

func (w *Writer) leave() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.busy--
}

func (w *Writer) refuse(host, what string, code refused) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.refusals = append(w.refusals,
		fmt.Sprintf("%s %s of %s on %s: %v", time.Now().Format("15:04:05.000"), what, w.Volume, host, code))
}

// Acked is how many writes of the present history were acknowledged.
func (w *Writer) Acked() (n int) {
	for _, s := range w.all() {
		s.mu.Lock()
		n += s.acked
		s.mu.Unlock()
	}
	return n
}

func (w *Writer) all() (out []*session) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for s := range w.sessions {
		out = append(out, s)
	}
	return out
}

// Hold lets no request begin until Forget. Requests under way go on: see Pause.
func (w *Writer) Hold() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.paused = true
}

// Pause lets no request begin; it returns when none is under way. It waits for requests that are frozen as well,
// so it may last until the volume goes on.
func (w *Writer) Pause(ctx context.Context, until func(context.Context, string, func() error) error) error {
	w.Hold()
	return until(ctx, "the writer of "+w.Volume+" is idle", func() error {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.busy != 0 {
			return fmt.Errorf("%d requests are not answered", w.busy)
		}
		return nil
	})
}

// Sweep reads the whole of a paused writer's pages where they are served, as a part of the history. One
// connection that answers is enough. errNoVolume is in the error if there is none.
func (w *Writer) Sweep() error {
	err := errNoVolume
	for _, s := range w.all() {
		if !s.conn.ended() {
			if err = s.sweep(); err == nil {
				return nil
			}
		}
	}
	return fmt.Errorf("read %s: %w", w.Volume, err)
}

// Past is what a Writer did and was told.
type Past struct {
	Ops     []check.Op
	Flushes []check.Flush
	Refused []string
}

// History is what happened since the last Forget; what the pages held then is in it as a first write. It may be
// called while requests are under way: those are not in it yet.
func (w *Writer) History() Past {
	var p Past
	for b, v := range w.initial {
		p.Ops = append(p.Ops, check.Op{Block: b, Write: true, Value: v, FUA: true, Call: -2, Return: -1})
	}
	for _, s := range w.all() {
		ops, flushes := s.history()
		p.Ops, p.Flushes = append(p.Ops, ops...), append(p.Flushes, flushes...)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	p.Refused = append(p.Refused, w.refusals...)
	return p
}

// Forget begins a new history of a paused writer after a Sweep, and lets it go on.
// Writes that were never answered have happened by now or never will: one that
// comes later is a value from nowhere.
func (w *Writer) Forget() {
	newest := map[uint64]check.Op{}
	for _, op := range w.History().Ops {
		if !op.Write && !op.Unknown && op.Call > newest[op.Block].Call {
			newest[op.Block] = op
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for b, op := range newest {
		w.initial[b] = op.Value
	}
	w.initial[pages-1] = 0 // nobody reads it
	for s, connected := range w.sessions {
		if !connected {
			delete(w.sessions, s)
			continue
		}
		s.mu.Lock()
		s.ops, s.flushes, s.proven, s.acked = nil, nil, -1, 0
		s.mu.Unlock()
	}
	w.refusals, w.paused = nil, false
}
