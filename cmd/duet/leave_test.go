package main

import (
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"duet/console/api"
)

// slowly is an admin who thinks before the answer.
type slowly struct {
	after time.Duration
	text  io.Reader
}

func (s slowly) Read(b []byte) (int, error) {
	time.Sleep(s.after)
	return s.text.Read(b)
}

// TestLeaveAsks: on a terminal an admin may think as long as it takes; a yes leaves, anything else changes nothing.
func TestLeaveAsks(t *testing.T) {
	for _, line := range []string{"cluster leave", "cluster rejoin 10.0.0.1 --token duet1.x.y"} {
		for answer, code := range map[string]int{"yes\n": exitOK, "no\n": exitError} {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t, true)
				b.in, b.inTTY = slowly{10 * time.Minute, strings.NewReader(answer)}, true
				if got := b.run(t.Context(), strings.Fields(line)); got != code || (len(b.paper.asked) == 1) != (code == exitOK) ||
					!strings.Contains(b.err.String(), "Type yes to go on") {
					t.Errorf("%s, answered %q:\n%s", line, answer, b.transcript(got))
				}
			})
		}
	}
}

// TestLeaveHere: what another computer's daemon says, or does not say, is nothing of this one's: no node leaves by it.
func TestLeaveHere(t *testing.T) {
	for _, line := range []string{"cluster leave --yes", "cluster rejoin 10.0.0.1 --token duet1.x.y --yes"} {
		b := newBench(t, true)
		code := b.run(t.Context(), strings.Fields(line+" --connect https://127.0.0.1:1"))
		if code != exitUsage || len(b.paper.asked) > 0 || !strings.Contains(b.err.String(), "DUET_CONNECT") {
			t.Errorf("%s:\n%s", line, b.transcript(code))
		}
	}
}

// TestLeaveSaysWhatIsToBeDone: while the daemon runs it is said how to get there, by the VMs that are on this host: one
// that runs on the other node is not to be stopped for that.
func TestLeaveSaysWhatIsToBeDone(t *testing.T) {
	const last = "`systemctl stop duetd`, then this command again"
	for want, st := range map[string]api.Status{
		"duetd runs here as node alpha: " + last: pair("SECOND/Ready off", "PRIM/Ready running"),
		"duetd runs here as node alpha, and VMs have their disks from it: `duet stop m` first, then " +
			last: pair("PRIM/Ready running", "SECOND/Ready off"),
		"duetd runs here as node alpha, which was removed from cluster office: " +
			last: removed(pair("WAIT/NotReady paused", "?PRIM/Ready")), // a rejoin needs no stop, and status names none
	} {
		for _, line := range []string{"cluster leave --yes", "cluster rejoin 10.0.0.1 --token duet1.x.y --yes"} {
			b := newBench(t, false)
			b.node.Set(st)
			if got := b.one(t, t.Context(), line, exitError); got != want || len(b.paper.asked) > 0 {
				t.Errorf("%s: %q, want %q", line, got, want)
			}
		}
	}
}

// removed is a status of a node that was taken off its cluster.
func removed(st api.Status) api.Status {
	st.Removed = "this node was removed, says beta"
	return st
}
