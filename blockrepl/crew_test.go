package blockrepl

import "testing"

// Who comes is counted until it leaves; batches are used again and watched once; readers are bounded.
func TestCrew(t *testing.T) {
	var c crew
	var w localWatch
	c.gather()
	one, two := c.join(&w), c.join(&w)
	if one == two || c.idle() || len(w.visits) != 2 {
		t.Fatalf("two at work, %d places", len(w.visits))
	}
	c.leave(one)
	if c.idle() || c.join(&w) != one || len(w.visits) != 2 {
		t.Fatal("a batch was not used again")
	}
	c.leave(two)
	if c.leave(one); !c.idle() {
		t.Fatal("somebody is left")
	}
	for range maxReaders {
		if !c.hire() {
			t.Fatal("too few readers")
		}
	}
	if c.hire() {
		t.Fatal("too many readers")
	}
	c.retire()
	if !c.hire() {
		t.Fatal("a place that is free is not taken")
	}
	for range maxReaders + 1 {
		c.wg.Done()
	}
	c.wg.Wait() // each was counted once
}

// A mailbox that is not empty has a token.
func TestMailbox(t *testing.T) {
	m := newMailbox()
	m.put(Drained{})
	m.put(PeerLost{})
	<-m.wake
	if got := m.take(); len(got) != 2 || got[0] != (Drained{}) || m.take() != nil {
		t.Fatal(got)
	}
	m.put(Drained{})
	select {
	case <-m.wake:
	default:
		t.Fatal("nobody is told")
	}
}
