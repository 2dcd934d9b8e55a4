package blockrepl

// pending is one frame sent and not acknowledged.
type pending struct {
	flight  *flight // a guest's write, or
	call    *call   // a request of the Primary itself, or nothing: a ping
	sent    int64   // clock, which is never 0: a slot with 0 is free
	counted bool    // its age is held against the peer
}

// window holds the frames in flight by Seq: a ring, as numbers are consecutive. It belongs to one link and grows
// with what the frontends have in flight, which they bound. Primary.mu guards it.
type window struct {
	slots       []pending // length a power of two
	first, next uint64    // sequence numbers first ≤ n < next may be in flight
}

// call is a request whose answer a goroutine waits for.
type call struct {
	done  chan error // capacity one: it is told once, by the answer or the end of the link
	reply []byte     // to be read after done
}

// add stores p under the next number, which it returns.
func (w *window) add(p pending) uint64 {
	if w.next == 0 {
		w.first, w.next = 1, 1
	}
	if int(w.next-w.first) == len(w.slots) {
		w.grow()
	}
	seq := w.next
	w.slots[seq&uint64(len(w.slots)-1)] = p
	w.next++
	return seq
}

// take removes and returns the frame with number seq; false if it is not in flight.
func (w *window) take(seq uint64) (pending, bool) {
	if seq < w.first || seq >= w.next {
		return pending{}, false
	}
	slot := &w.slots[seq&uint64(len(w.slots)-1)]
	p := *slot
	*slot = pending{}
	for w.first < w.next && w.slots[w.first&uint64(len(w.slots)-1)].sent == 0 {
		w.first++
	}
	return p, p.sent != 0
}

// oldest is when the oldest counted frame was sent; 0 if there is none.
func (w *window) oldest() int64 {
	for seq := w.first; seq < w.next; seq++ {
		if p := &w.slots[seq&uint64(len(w.slots)-1)]; p.sent != 0 && p.counted {
			return p.sent
		}
	}
	return 0
}

// failCalls ends every call in flight with err. Writes of guests stay where they are: they wait for another link,
// or for the right to go on alone.
func (w *window) failCalls(err error) {
	for i := range w.slots {
		if c := w.slots[i].call; c != nil {
			c.done <- err
			w.slots[i] = pending{}
		}
	}
}

func (w *window) grow() {
	old := w.slots
	w.slots = make([]pending, max(64, 2*len(old)))
	for seq := w.first; seq < w.next; seq++ {
		w.slots[seq&uint64(len(w.slots)-1)] = old[seq&uint64(len(old)-1)]
	}
}
