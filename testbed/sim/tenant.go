package sim

import (
	"context"
	"time"
)

// tenant is a volume as its disk and its log know it, in either role: it counts what of it is in them, so that Close
// can wait for that. A process that dies takes all of it along.
type tenant struct {
	n       *Node
	p       *process
	inside  int  // operations of the disk and the log that have not ended
	closing bool // leave wakes Close
}

// io is Node.io. What fn begins counts before the operation has left.
func (t *tenant) io(at access, base time.Duration, fn func(error)) {
	t.inside++
	t.n.io(at, base, t.p, func(err error) {
		fn(err)
		t.leave()
	})
}

// commit is Node.commit.
func (t *tenant) commit(apply func(*dirtyLog), fn func(), fail func(error)) {
	t.inside++
	t.n.commit(t.p, apply, func() { fn(); t.leave() }, func(err error) { fail(err); t.leave() })
}

func (t *tenant) leave() {
	if t.inside--; t.closing {
		t.p.wake()
	}
}

// leaves is the end of Close: the volume that is opened next knows whether this copy is intact.
func (t *tenant) leaves(intact bool) error {
	err := t.vacate()
	if err == nil && t.n.proc == t.p {
		t.n.intact = intact
	}
	return err
}

// vacate waits for all that is in the disk and the log, then makes durable what was written, unless the disk fails.
// As in production it lasts as long as an operation that hangs. Kinder: that flush takes no time, and one that would
// fail is not seen.
func (t *tenant) vacate() error {
	t.closing = true
	// it ends with the process
	_ = t.p.waitFor(context.Background(), func() bool { return t.inside == 0 })
	if err := t.n.disk.failed(); err != nil {
		return err
	}
	t.n.disk.flushed(t.n.disk.now())
	return nil
}
