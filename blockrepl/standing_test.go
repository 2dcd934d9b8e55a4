package blockrepl

import (
	"errors"
	"testing"
)

// What may begin, state by state, with and without a hold or a failure.
func TestStandingAdmits(t *testing.T) {
	for state := Detached; state <= Closed; state++ {
		var s standing
		s.move(state)
		writes := state == Alone || state == Syncing || state == Required || state == Connected
		if s.writable() != writes || s.readable() != (state != Detached && state != Closed) {
			t.Errorf("%v: writes %v, reads %v", state, s.writable(), s.readable())
		}
		if held := s.hold(); held != (state != Closed) || s.writable() {
			t.Errorf("%v: hold %v, then writes %v", state, held, s.writable())
		}
		if s.hold() {
			t.Errorf("%v: held twice", state)
		}
		if s.release() != (state != Closed) || s.release() || s.writable() != writes {
			t.Errorf("%v: after the hold writes %v", state, s.writable())
		}
		if news := s.fail(errLinkLost); news != (state != Closed) || s.writable() && news || s.mayCommit() {
			t.Errorf("%v: failed %v, then writes %v", state, news, s.writable())
		}
	}
}

// The first failure stays the reason, nothing leads out of Closed.
func TestStandingIsFinal(t *testing.T) {
	var s standing
	first := errors.New("first")
	if !s.fail(first) || s.fail(errors.New("second")) {
		t.Fatal("a failure that is none, or two")
	}
	if s.failed != first {
		t.Fatal(s.failed)
	}
	s.move(Closed)
	s.move(Alone)
	if s.state != Closed {
		t.Fatalf("%v after Closed", s.state)
	}
}
