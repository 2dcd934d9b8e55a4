package blockrepl

// attachment is the present peer, if there is one.
//
// Invariant: there is at most one link, and a new one comes only when the last is closed:
// until then its socket may still read the data of requests (parting), and nobody may end
// a write alone. One handshake at a time is in progress (joining). Primary.mu guards it.
type attachment struct {
	link    *link // nil: no peer
	parting bool  // a lost link is being closed
	joining bool  // a handshake is in progress
}

// vacant says that a peer may be greeted.
func (a *attachment) vacant() bool { return a.link == nil && !a.joining }

// greeting begins or ends a handshake.
func (a *attachment) greeting(is bool) { a.joining = is }

// install makes l the present link.
func (a *attachment) install(l *link) { a.link = l }

// part makes l, the present link, one that is being closed; parted says that it is.
func (a *attachment) part(l *link) {
	l.window.failCalls(errLinkLost)
	l.cancel()
	a.link, a.parting = nil, true
}

func (a *attachment) parted() { a.parting = false }

// cut takes the present link away for ever, as the volume is fenced. Whoever calls it closes it.
func (a *attachment) cut() *link {
	l := a.link
	a.link = nil
	if l != nil {
		l.window.failCalls(ErrClosed)
		l.cancel()
	}
	return l
}

// lacks says that the present peer was not sent f on its link.
func (a *attachment) lacks(f *flight) bool { return a.link != nil && f.sent != a.link }

// has says that f is where it has to be beside this node: the present peer has acknowledged
// it on this very link; without one, the peer that was lost had, or this node is alone and
// nothing of a lost link refers to f any more. An acknowledgement of an earlier link does not count for a new one: the
// peer may have crashed in between.
func (a *attachment) has(f *flight, alone bool) bool {
	switch {
	case a.link != nil:
		return f.acked == a.link
	case f.acked != nil && f.acked == f.sent:
		return true
	}
	return alone && !a.parting
}
