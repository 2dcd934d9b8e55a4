package blockrepl

// State is where a Primary stands to its peer.
type State uint8

// The states of a Primary. Only Alone to Connected acknowledge writes.
const (
	Detached  State = iota // start: all I/O waits for Attach or GoAlone
	Alone                  // writes are local; no peer
	Syncing                // writes go to both; losing the peer returns to Alone
	Required               // as Connected, but the peer is not yet known complete, or has regions to catch up
	Connected              // both copies are complete; losing the peer freezes
	Frozen                 // the peer was lost while required: writes wait
	Closed
)

var stateNames = [...]string{"detached", "alone", "syncing", "required", "connected", "frozen", "closed"}

// String is the word admins see.
func (s State) String() string { return stateNames[s] }

// attached says that writes go to a peer.
func (s State) attached() bool { return s >= Syncing && s <= Connected }

// required says that no write may be acknowledged without the peer.
func (s State) required() bool { return s == Required || s == Connected }

// decides says that this node alone decides what the data is: what it writes is a generation of its own.
func (s State) decides() bool { return s == Alone || s == Syncing }

// standing says what may begin and what may end: it is where the volume stands to its peer,
// to a hold, and to its own copy.
//
// Invariant: Closed is never left; a failure is never taken back, the first one stays the
// reason. Primary.mu guards it.
type standing struct {
	state   State
	holding bool  // Hold is in force
	failed  error // the local failure for which writes wait
}

// move takes the volume to another state. Nothing leads out of Closed.
func (s *standing) move(to State) {
	if s.state != Closed {
		s.state = to
	}
}

// writable says whether writes may start.
func (s *standing) writable() bool {
	return (s.state == Alone || s.state.attached()) && !s.holding && s.failed == nil
}

// readable says whether reads may start.
func (s *standing) readable() bool { return s.state != Detached && s.state != Closed }

// mayCommit says whether the log is still to be written.
func (s *standing) mayCommit() bool { return s.failed == nil && s.state != Closed }

// fail notes a failure of the local copy, and reports whether it is news.
func (s *standing) fail(err error) bool {
	if s.failed != nil || s.state == Closed {
		return false
	}
	s.failed = err
	return true
}

// hold begins a hold, and reports whether it could.
func (s *standing) hold() bool {
	if s.holding || s.state == Closed {
		return false
	}
	s.holding = true
	return true
}

// release ends a hold, and reports whether there was one.
func (s *standing) release() bool {
	was := s.holding
	s.holding = false
	return was
}
