package guard

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"duet/cluster"
)

const limit = 1200 * time.Millisecond

func web(right bool) Guest {
	return Guest{Module: "web01", VM: "web01", PID: 7, Start: 70, Peer: "beta", Epoch: 3, Right: right, Limit: limit}
}

func word(at time.Duration, guests ...Guest) Word { return Word{At: at, Guests: guests} }

func show(do []order) string {
	var out []string
	for _, o := range do {
		out = append(out, fmt.Sprintf("%s %s", [...]string{"pause", "resume", "end"}[o.do], o.guest.Module))
	}
	return strings.Join(out, ", ")
}

// expect compares orders.
func expect(t *testing.T, when string, do []order, want string) {
	t.Helper()
	if got := show(do); got != want {
		t.Errorf("%s: orders are %q, want %q", when, got, want)
	}
}

// started is a roster whose guard began long ago.
func started() *roster { return newRoster(-time.Minute, nil) }

func TestSilenceOfTheDaemon(t *testing.T) {
	r := started()
	r.hear(word(0, web(true)))
	r.hear(word(100*time.Millisecond, web(true)))
	expect(t, "before its time", r.late(100*time.Millisecond+limit-1), "")
	expect(t, "at its time", r.late(100*time.Millisecond+limit), "pause web01")
	expect(t, "later", r.late(time.Hour), "")
	if got := r.report().Paused; len(got) != 1 || got[0] != "web01" {
		t.Errorf("it reports %q", got)
	}
	expect(t, "a word that does not vouch", r.hear(word(time.Hour, web(false))), "")
	expect(t, "one that does", r.hear(word(time.Hour, web(true))), "resume web01")
	expect(t, "after it", r.late(time.Hour+limit-1), "")
	expect(t, "and silence again", r.late(time.Hour+limit), "pause web01")
}

// TestShortLives: daemons that die before they know whether the right is here postpone nothing.
func TestShortLives(t *testing.T) {
	r := started()
	r.hear(word(0, web(true)))
	for at := 300 * time.Millisecond; at < limit; at += 300 * time.Millisecond {
		r.hear(word(at, web(false)))
		expect(t, at.String(), r.late(at), "")
	}
	expect(t, "in the end", r.late(limit), "pause web01")
}

// TestWordsThatWaited: what a word is worth counts from when it was said.
func TestWordsThatWaited(t *testing.T) {
	r := started()
	r.hear(word(0, web(true)))
	r.hear(word(limit/2, web(true))) // heard after the whole computer stood still
	expect(t, "after the standstill", r.late(30*time.Second), "pause web01")
}

// TestOrderlyStop: the peer's patience counts, and ends with the next run that it hears.
func TestOrderlyStop(t *testing.T) {
	patient := web(true)
	patient.Limit = 27 * time.Second
	r := started()
	r.hear(word(0, patient))
	expect(t, "while the peer is patient", r.late(26*time.Second), "")
	expect(t, "at its end", r.late(27*time.Second), "pause web01")

	r = started()
	r.hear(word(0, patient))
	r.hear(word(10*time.Second, web(false)))
	r.hear(word(11*time.Second, web(false)))
	expect(t, "after a new run began", r.late(10*time.Second+limit-1), "")
	expect(t, "and fell silent", r.late(10*time.Second+limit), "pause web01")

	r = started()
	r.hear(word(0, patient))
	r.hear(word(26500*time.Millisecond, web(false)))
	expect(t, "a new run gives no more time", r.late(27*time.Second), "pause web01")
}

// TestAnotherModuleOfTheName: what a peer says of another module of the name ends no guest; where one side is of an
// older release, which tells no identity, the name counts.
func TestAnotherModuleOfTheName(t *testing.T) {
	for _, c := range []struct{ mine, theirs, want string }{
		{"old", "new", ""}, {"old", "old", "end web01"}, {"old", "", "end web01"}, {"", "new", "end web01"},
	} {
		g := web(true)
		g.ID = c.mine
		r := started()
		r.hear(word(0, g))
		r.late(limit)
		expect(t, fmt.Sprint(c), r.learn(g, Standing{ID: c.theirs, Epoch: 4, Holder: "beta"}), c.want)
	}
}

// TestAlone: a guest that the peer cannot take over is not paused, but its peer is asked.
func TestAlone(t *testing.T) {
	lone := web(true)
	lone.Limit = 0
	r := started()
	r.hear(word(0, lone))
	expect(t, "after a day", r.late(24*time.Hour), "")
	if got := r.doubtful(wonder - 1); len(got) != 0 {
		t.Error("its peer is asked at once")
	}
	if got := r.doubtful(wonder); len(got) != 1 {
		t.Error("its peer is not asked")
	}
	expect(t, "an operator's word on the peer", r.learn(lone, Standing{Epoch: 4, Holder: "beta"}), "end web01")
}

func TestOnlyANewerEpochOfThePeerEnds(t *testing.T) {
	for _, s := range []Standing{
		{Epoch: 3, Holder: "alpha"}, {Epoch: 3, Holder: "beta"}, {Epoch: 4, Holder: "alpha"},
		{Epoch: 2, Holder: "beta", Taking: true}, {},
	} {
		r := started()
		r.hear(word(0, web(true)))
		r.late(limit)
		expect(t, fmt.Sprint(s), r.learn(web(true), s), "")
	}
	r := started()
	r.hear(word(0, web(true)))
	r.late(limit)
	newer := Standing{Epoch: 4, Holder: "beta"}
	other := web(true)
	other.PID = 8
	expect(t, "about an older process", r.learn(other, newer), "")
	expect(t, "about this one", r.learn(web(true), newer), "end web01")
	won := web(true)
	won.Epoch = 5
	r.hear(word(2*limit, won))
	expect(t, "an answer that this node has overtaken", r.learn(web(true), newer), "")
}

func TestGuestsComeAndGo(t *testing.T) {
	r := started()
	off := web(true)
	off.PID, off.Start = 0, 0
	r.hear(word(0, off))
	if len(r.guests) != 0 {
		t.Error("a VM without a process is guarded")
	}
	r.hear(word(0, web(false)))
	expect(t, "nobody ever vouched for it", r.late(limit), "pause web01")
	r.hear(word(2 * limit))
	if len(r.guests) != 1 {
		t.Error("a paused guest is let go without a word")
	}
	again := web(true)
	again.PID, again.Start = 8, 80
	expect(t, "another process", r.hear(word(2*limit, again)), "")
	expect(t, "it has a time of its own", r.late(3*limit-1), "")
	r.hear(word(3 * limit))
	expect(t, "a module that was released", r.late(time.Hour), "")
}

// TestNextGuard: it takes up what the last one knew, after it gave a daemon that lives the time to say so.
func TestNextGuard(t *testing.T) {
	left := []held{{Guest: web(true), Until: 10, Said: 5}}
	r := newRoster(time.Hour, left)
	expect(t, "at its start", r.late(time.Hour), "")
	expect(t, "without a word", r.late(time.Hour+settle), "pause web01")
	r = newRoster(time.Hour, left)
	r.hear(word(time.Hour+settle/2, web(true)))
	expect(t, "with one", r.late(time.Hour+settle), "")
	left[0].Paused = true
	r = newRoster(time.Hour, left)
	expect(t, "one that was paused", r.hear(word(time.Hour, web(true))), "resume web01")
}

func TestConfirms(t *testing.T) {
	for _, c := range []struct {
		Standing
		want bool
	}{
		{Standing{Alive: true, Epoch: 3, Holder: "alpha"}, true},
		{Standing{Alive: true, Epoch: 2, Holder: "beta"}, true}, // it has not heard of ours yet
		{Standing{Alive: true}, true},
		{Standing{Epoch: 3, Holder: "alpha"}, false},
		{Standing{Alive: true, Epoch: 3, Holder: "alpha", Taking: true}, false},
		{Standing{Alive: true, Epoch: 4, Holder: "alpha"}, false},
		{Standing{Alive: true, Epoch: 3, Holder: "beta"}, false},
	} {
		if got := c.Confirms("beta", cluster.Epoch(3)); got != c.want {
			t.Errorf("%+v confirms epoch 3 of alpha: %t", c.Standing, got)
		}
	}
}

// TestInTime: the pause comes before the peer can be sure of the silence, and after a restart of the daemon could end
// it.
func TestInTime(t *testing.T) {
	d := cluster.DefaultDetection
	soonest := d*85/100 - 2*d/20 // see gossip: silence from a question that was asked two beats before the last answer
	if at := PauseAfter(d) + 3*look; at >= soonest-2*Beat(d) {
		t.Errorf("paused up to %v after the last word, and the peer takes over after %v", at, soonest)
	}
}
