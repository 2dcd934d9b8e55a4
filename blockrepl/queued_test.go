package blockrepl

import "testing"

// A write that was to be sent to a peer that is gone again, before anybody came to send it, ends once.
func TestQueuedWriteEndsOnce(t *testing.T) {
	q := newPair(t, 6<<20).up()
	reached, release := make(chan struct{}), make(chan struct{})
	q.b.dev.(*disk).gate = func() {
		close(reached)
		<-release
	}
	t.Cleanup(func() { close(release) })
	w := q.start(write(0, fill(1, Sector)))
	<-reached
	q.lose()

	p := q.p
	var done completions
	p.mu.Lock()
	p.stand.state, p.peer.link = Required, &link{}
	p.review(&done) // it is to be sent to this one
	p.stand.state, p.peer.link, p.ledger.own = Alone, nil, true
	p.review(&done) // nobody needs it any more
	p.mu.Unlock()
	done.deliver()
	if !w.pending() {
		t.Fatal("it has ended, and the ready list refers to it")
	}
	p.issue()
	if err := q.result(w); err != nil {
		t.Fatal(err)
	}
}
