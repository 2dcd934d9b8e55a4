package guard

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"duet/cluster"
)

// post is a Sentry of alpha that is driven by hand, and a guard that writes down what it is told.
type post struct {
	t      *testing.T
	s      *Sentry
	charge Charge
	says   atomic.Pointer[confirmation] // of the peer
	alive  bool
	pid    int

	words  chan Word
	paused []string
	close  func()
}

func newPost(t *testing.T) *post {
	t.Helper()
	dir, err := os.MkdirTemp("", "dg") // short: a unix socket lies in it
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	p := &post{t: t, alive: true, words: make(chan Word, 1), charge: Charge{Module: "web01", VM: "web01", Peer: "beta",
		Record: cluster.Record{Epoch: 3, Holder: "alpha"}, Connected: true}}
	c := cluster.Config{Self: "alpha", Detection: 20 * time.Millisecond}
	p.s = NewSentry(SentryConfig{Socket: filepath.Join(dir, "s"), LeaveGrace: 10 * time.Second,
		Logger: slog.New(slog.DiscardHandler), Cluster: func() cluster.Config { return c },
		View: func() cluster.View {
			return cluster.View{Peers: map[cluster.NodeID]cluster.PeerView{"beta": {Paths: map[string]bool{"hb1": p.alive}}}}
		},
		Charges: func() []Charge { return []Charge{p.charge} },
		Process: func(string) (int, error) { return p.pid, nil },
		Ask: func(context.Context, cluster.NodeID, string) (Standing, error) {
			c := p.says.Load()
			return c.Standing, c.err
		}})
	p.says.Store(&confirmation{})
	p.listen()
	t.Cleanup(func() {
		p.s.link.Close()
		p.close()
		p.s.asks.Wait()
	})
	return p
}

// listen has a guard answer.
func (p *post) listen() {
	ln, err := net.Listen("unix", p.s.cfg.Socket)
	must(p.t, err)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			in, out := json.NewDecoder(conn), json.NewEncoder(conn)
			for w := (Word{}); in.Decode(&w) == nil; w = (Word{}) {
				p.words <- w
				_ = out.Encode(Report{Paused: p.paused}) // the sentry sees a broken answer
			}
			_ = conn.Close()
		}
	}()
	p.close = func() {
		_ = ln.Close()
		<-ended
	}
}

// tell is one word, and what the guard heard of the only guest.
func (p *post) tell() Guest {
	p.t.Helper()
	p.s.tell(p.t.Context())
	w := <-p.words
	if len(w.Guests) != 1 {
		p.t.Fatalf("it tells of %d guests", len(w.Guests))
	}
	return w.Guests[0]
}

// asked tells until the peer was asked, and hands its answer over, which is that.
func (p *post) asked(says Standing, away error) {
	p.t.Helper()
	p.says.Store(&confirmation{Standing: says, err: away})
	for since := time.Now(); ; {
		p.tell()
		select {
		case c := <-p.s.said:
			if p.s.hear(c); c.begun.After(since) { // else it is the answer before
				return
			}
		case <-time.After(time.Millisecond):
		case <-p.t.Context().Done():
			p.t.Fatal("the peer is not asked")
		}
	}
}

// TestVouchesWhenConfirmed: a run vouches for the right to write when its peer has confirmed it, not when it has the
// right, or asks for it; and anew after it lost it.
func TestVouchesWhenConfirmed(t *testing.T) {
	p := newPost(t)
	if p.tell().Right {
		t.Error("it vouches before anybody was asked")
	}
	for what, says := range map[string]Standing{
		"a peer that asks for it":   {Epoch: 3, Holder: "alpha", Taking: true, Alive: true},
		"a peer that has it":        {Epoch: 4, Holder: "beta", Alive: true},
		"a peer that hears nothing": {Epoch: 3, Holder: "alpha"},
	} {
		if p.asked(says, nil); p.tell().Right {
			t.Errorf("it vouches after %s", what)
		}
	}
	if p.asked(Standing{}, errors.New("it does not answer")); p.tell().Right {
		t.Error("it vouches after no answer")
	}
	if p.asked(Standing{Epoch: 3, Holder: "alpha", Alive: true}, nil); !p.tell().Right {
		t.Error("it does not vouch after the peer confirmed")
	}
	p.charge.Record.Holder = "beta"
	if p.tell().Right {
		t.Error("it vouches for a right that the peer has")
	}
	p.charge.Record = cluster.Record{Epoch: 5, Holder: "alpha"}
	if p.tell().Right {
		t.Error("it vouches for a new epoch by the old answer")
	}
	if p.asked(Standing{Epoch: 5, Holder: "alpha", Alive: true}, nil); !p.tell().Right {
		t.Error("it does not vouch for a new epoch after the peer confirmed")
	}
	p.s.last -= time.Hour // this process stood still
	if p.tell().Right {
		t.Error("it vouches after it stood still")
	}
}

// TestPeerHasAnotherModule: a peer that has another module of the name takes this one over as little as one that has
// none, and confirms by its heartbeats.
func TestPeerHasAnotherModule(t *testing.T) {
	p := newPost(t)
	p.charge.ID = "mine"
	if p.asked(Standing{ID: "other", Epoch: 9, Holder: "beta"}, nil); p.tell().Right {
		t.Error("it vouches for a module whose peer does not hear it")
	}
	if p.asked(Standing{ID: "other", Epoch: 9, Holder: "beta", Alive: true}, nil); !p.tell().Right {
		t.Error("it does not vouch because of another module's epoch")
	}
	if g := p.tell(); g.ID != "mine" {
		t.Errorf("the guard is told of %q", g.ID)
	}
}

// TestStaleAnswer: what was asked before the right was lost says nothing of the next one.
func TestStaleAnswer(t *testing.T) {
	p := newPost(t)
	p.tell()
	o := p.s.oaths["web01"]
	o.asking = true
	p.s.hear(confirmation{module: "web01", begun: o.since.Add(-time.Second),
		Standing: Standing{Epoch: 3, Holder: "alpha", Alive: true}})
	if o.asking || p.tell().Right {
		t.Errorf("an old answer counts, or it waits for it still: %+v", o)
	}
	p.s.hear(confirmation{module: "gone"}) // of a module that is not there any more
}

// TestLimits: who may take over, and when, decides how long a guest may run without a word.
func TestLimits(t *testing.T) {
	p := newPost(t)
	usual := PauseAfter(p.s.cfg.Cluster().Detection)
	if g := p.tell(); g.Limit != usual || g.Peer != "beta" || g.Epoch != 3 {
		t.Errorf("a connected peer: %+v", g)
	}
	p.charge.Record.Alone = true
	if g := p.tell(); !g.Right || g.Limit != usual {
		t.Errorf("alone, with a peer that comes into step: %+v", g)
	}
	p.charge.Connected = false
	if g := p.tell(); !g.Right || g.Limit != 0 {
		t.Errorf("nobody else has the data: %+v", g)
	}
	p.charge.Record.Alone = false
	p.s.Leaving(p.s.cfg.View())
	if g := p.tell(); g.Limit != 9*time.Second {
		t.Errorf("a peer that heard that this node leaves: %+v", g)
	}
	p.alive = false
	p.s.Leaving(p.s.cfg.View())
	if g := p.tell(); g.Limit != usual {
		t.Errorf("a peer that did not hear it: %+v", g)
	}
}

// TestProcessOfGuest: the process of a guest is told with its start, and found anew when it ended.
func TestProcessOfGuest(t *testing.T) {
	p := newPost(t)
	if g := p.tell(); g.PID != 0 {
		t.Errorf("a VM without a process: %+v", g)
	}
	pid, start := child(t)
	p.pid = pid
	if g := p.tell(); g.PID != pid || g.Start != start {
		t.Errorf("it tells %+v, want %d, %d", g, pid, start)
	}
	p.pid = 0 // the hypervisor does not answer, and is not asked
	if g := p.tell(); g.PID != pid {
		t.Errorf("a process that lives on: %+v", g)
	}
	p.s.found["web01"] = life{pid, start - 1} // a number that was used again
	if g := p.tell(); g.PID != 0 {
		t.Errorf("a process that ended: %+v", g)
	}
	p.charge.Module = "db01"
	if p.tell(); len(p.s.oaths) != 1 || p.s.oaths["db01"] == nil {
		t.Errorf("modules that are gone are kept: %v", p.s.oaths)
	}
}

// TestGuardGone: what people are told when no guard answers, or it keeps a guest paused; and a guest that a guard
// paused before it went goes on when the right is proven.
func TestGuardGone(t *testing.T) {
	p := newPost(t)
	codes := func() (out string) {
		for _, x := range p.s.Notices("web01") {
			out += x.Code + " "
			if x.Text == "" || x.Remedy == "" {
				t.Errorf("a notice without a way: %+v", x)
			}
		}
		return out
	}
	p.tell()
	if got := codes(); got != "" || !*p.s.Answers() {
		t.Errorf("while all is well: %q", got)
	}
	p.paused = []string{"web01"}
	p.tell()
	if got := codes(); got != "guard-paused " {
		t.Errorf("a guest that is kept paused: %q", got)
	}
	p.paused = nil
	p.tell()
	p.s.link.Close()
	p.close()
	pid, start := child(t)
	p.s.found["web01"] = life{pid, start}
	pr, err := openProcess(pid, start)
	must(t, err)
	must(t, pr.do(pause))
	pr.close()
	becomes(t, pid, "T")
	p.charge.Record.Alone = true // the right needs no peer
	p.s.tell(t.Context())
	becomes(t, pid, "S")
	if *p.s.Answers() || codes() != "" {
		t.Errorf("a guard that is gone for a moment: %q", codes())
	}
	p.s.absent = time.Now().Add(-noGuardFor)
	if got := codes(); got != "no-guard " || !strings.Contains(p.s.Notices("web01")[0].Text, "tell the guard") {
		t.Errorf("a guard that is gone: %q", got)
	}
	p.listen()
}

// TestNoSentry: a node without a guard has nobody to tell.
func TestNoSentry(t *testing.T) {
	var none *Sentry
	none.Changed()
	none.Leaving(cluster.View{})
	if none.Answers() != nil || none.Notices("web01") != nil {
		t.Error("a guard that is not there says something")
	}
}

// TestRunTells: it tells at once, when something has changed, and a last time.
func TestRunTells(t *testing.T) {
	p := newPost(t)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		p.s.Run(ctx)
	}()
	<-p.words
	p.s.Changed()
	<-p.words
	cancel()
	for at := time.Duration(0); ; {
		select {
		case w := <-p.words:
			if w.At < at {
				t.Error("words go back in time")
			}
			at = w.At
			continue
		case <-ended:
		}
		break
	}
}
