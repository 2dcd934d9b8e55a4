package blockrepl

// traffic is every request between Submit and its end, and every lock of a resync.
//
// Invariant: each flight is in exactly one place, the one that its step names, and all but
// suspended reads are in the table too:
//
//	stepBlocked    in the table only, behind an overlapping flight
//	stepHeld       in held: the state does not admit it
//	stepSuspended  in suspended: a read of what the peer may not have
//	stepMarking    in marking: a commit has to end first
//	stepReady      in ready
//	stepIssued     in a batch, with the peer, or in readq; queued: in ready again, to be sent again
//
// Flushes are in flushes or in the round under way, and in no table. Only the methods here
// move a flight, so that issued and the lists always fit the steps. Primary.mu guards it.
type traffic struct {
	table     table
	ready     []*flight // may be issued
	held      []*flight // not admitted in this state, in order
	marking   []*flight // wait for a commit
	suspended []*flight // reads of suspect regions, out of the table
	readq     []*flight // reads that wait for the disk
	flushes   []*Request
	issued    int // writes that were issued and have not ended

	free []*flight // scratch of leave
}

// enter puts f in the table, and reports whether nothing is before it.
func (t *traffic) enter(f *flight, w *watch) bool {
	if t.table.insert(f) {
		return true
	}
	f.step, f.started = stepBlocked, w.clock()
	return false
}

// wait keeps f in the place of step, a kind of waiting. Its latency counts from here.
func (t *traffic) wait(f *flight, step step, now int64) {
	f.step = step
	if f.started == 0 {
		f.started = now
	}
	switch step {
	case stepHeld:
		t.held = append(t.held, f)
	case stepMarking:
		t.marking = append(t.marking, f)
	case stepSuspended:
		t.suspended = append(t.suspended, f)
	}
}

// suspend takes a read out of the table until it is resumed, and returns what may start for that. In the table it
// would keep the resync off the very region that it waits for.
func (t *traffic) suspend(f *flight, now int64) []*flight {
	t.wait(f, stepSuspended, now)
	return t.table.remove(f, nil)
}

// pass lets f go.
func (t *traffic) pass(f *flight) {
	f.step = stepReady
	t.ready = append(t.ready, f)
}

// sendAgain has an issued write sent to the present peer too, once.
func (t *traffic) sendAgain(f *flight) {
	if !f.queued {
		f.queued = true
		t.ready = append(t.ready, f)
	}
}

// issue moves f, which is in ready, on its way, and reports whether it begins: otherwise it
// is only to be sent again.
func (t *traffic) issue(f *flight, now int64) (begins bool) {
	f.queued = false
	if f.step == stepIssued {
		return false
	}
	f.step = stepIssued
	if f.started == 0 {
		f.started = now
	}
	if f.excl {
		t.issued++
	}
	return true
}

// granted says that a lock of a resync has its range. It is no guest's write, so it is not counted.
func (t *traffic) granted(f *flight) { f.step = stepIssued }

// leave takes an issued flight out, and returns what may start for that, until the next call of leave.
func (t *traffic) leave(f *flight) []*flight {
	t.free = t.table.remove(f, t.free[:0])
	if f.excl {
		t.issued--
	}
	return t.free
}

// unlock takes the lock of a resync out, and returns what may start for that.
func (t *traffic) unlock(f *flight) []*flight { return t.table.remove(f, nil) }

// admissible empties and returns held: the flights that may try again after a change of state.
func (t *traffic) admissible() []*flight {
	held := t.held
	t.held = nil
	return held
}

// marked empties and returns marking: the flights that may try again after a commit.
func (t *traffic) marked() []*flight {
	marking := t.marking
	t.marking = nil
	return marking
}

// resumed empties and returns suspended: the reads, to be entered again.
func (t *traffic) resumed() []*flight {
	suspended := t.suspended
	t.suspended = nil
	return suspended
}

// taken says that all of ready was taken into a batch.
func (t *traffic) taken() {
	clear(t.ready)
	t.ready = t.ready[:0]
}

// flush lets r, a flush or a write that has to be durable, wait for the next round.
func (t *traffic) flush(r *Request) { t.flushes = append(t.flushes, r) }

// round empties and returns the flushes that wait; unflushed brings them back, first in line.
func (t *traffic) round() []*Request {
	round := t.flushes
	t.flushes = nil
	return round
}

func (t *traffic) unflushed(round []*Request) { t.flushes = append(round, t.flushes...) }

// queueRead lets an issued read wait for the disk.
func (t *traffic) queueRead(f *flight) { t.readq = append(t.readq, f) }

// nextRead takes the read that waits longest for the disk; nil if there is none.
func (t *traffic) nextRead() *flight {
	if len(t.readq) == 0 {
		return nil
	}
	f := t.readq[0]
	t.readq = t.readq[1:]
	return f
}

// moves says that somebody has to come: something is ready, or a commit is wanted.
func (t *traffic) moves() bool { return len(t.ready) > 0 || len(t.marking) > 0 }

// begun says that a write waits for the generation before it may begin or end.
func (t *traffic) begun() bool { return len(t.marking) > 0 || t.issued > 0 }

// waiting is the number of requests that the volume holds back.
func (t *traffic) waiting() int { return len(t.held) + len(t.marking) + len(t.suspended) }

// issuedWrites calls f for each write that was issued and has not ended.
func (t *traffic) issuedWrites(f func(*flight)) {
	for i := range t.table.writes {
		if w := t.table.writes[i].f; w.req != nil && w.step == stepIssued {
			f(w)
		}
	}
}

// dismiss ends every request that no goroutine is working on with ErrClosed, and forgets
// all: the others are ended by that goroutine. The table is not used any more. The caller delivers when nothing
// refers to their data.
func (t *traffic) dismiss() *completions {
	done := &completions{}
	for _, list := range [][]span{t.table.reads, t.table.writes} {
		for _, s := range list {
			if s.f.req != nil && s.f.busy == 0 {
				done.add(s.f.req, ErrClosed)
			}
		}
	}
	for _, f := range t.suspended {
		done.add(f.req, ErrClosed)
	}
	for _, r := range t.flushes {
		done.add(r, ErrClosed)
	}
	issued := t.issued
	*t = traffic{issued: issued}
	return done
}
