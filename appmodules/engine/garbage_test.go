package engine

import (
	"context"
	"errors"
	"strings"
	"testing"

	"duet/appmodules"
	"duet/blockrepl"
	"duet/cluster"
)

// TestNonsenseFromThePeer: what a node is told that cannot be so, or is late, is refused with a reason or ignored, and
// changes neither its record nor what runs.
func TestNonsenseFromThePeer(t *testing.T) {
	p := newPair(t)
	a, b := p.formed()
	ea, eb, ctx := a.running(), b.running(), t.Context()
	known := func() (out [2]cluster.Record) {
		a.inside(func(e *Engine) { out[0] = e.rec })
		b.inside(func(e *Engine) { out[1] = e.rec })
		return out
	}
	records := known()
	before := journal(a) + journal(b)

	for name, c := range map[string]struct {
		e    *Engine
		ask  cluster.Ask
		says string
	}{
		"nothing":           {eb, cluster.Ask{}, " is not the other node of web01"},
		"itself":            {eb, cluster.Ask{Node: "beta", Epoch: 5, Complete: 1}, "beta is not the other node of web01"},
		"an epoch long ago": {eb, cluster.Ask{Node: "alpha", Complete: 1}, "newer than epoch 0"},
		"again, too late": {eb, cluster.Ask{Node: "alpha", Epoch: 1, Complete: 1},
			"rule 5: alpha holds epoch 1 already"},
		"of a primary":     {ea, cluster.Ask{Node: "beta", Epoch: 2, Complete: 1}, "alpha holds epoch 1 and runs the module"},
		"of a far primary": {ea, cluster.Ask{Node: "beta", Epoch: 1 << 60, Complete: 1 << 60}, "rule 1"},
	} {
		ans, err := c.e.OnAsk(ctx, c.ask)
		if err != nil || ans.Yes || !strings.Contains(ans.Why, c.says) {
			t.Errorf("an ask of %s: %+v, %v; want %q", name, ans, err, c.says)
		}
	}
	for name, c := range map[string]struct {
		err  error
		says string
	}{
		"the end of another resync":   {eb.OnComplete(ctx, Complete{Epoch: 9}), "this node knows epoch 1 of alpha"},
		"the end of a resync to none": {ea.OnComplete(ctx, Complete{Epoch: 1}), "rule 7: complete epoch 1"},
		"the end of this one, again":  {eb.OnComplete(ctx, Complete{Epoch: 1}), ""},
		"a handover of nothing":       {eb.OnHandover(ctx, Handover{}), "rule 9: hand over epoch 0"},
		"a handover from afar":        {eb.OnHandover(ctx, Handover{From: 7, Epoch: 8}), "complete at 1, promised 1"},
		"a handover to a primary":     {ea.OnHandover(ctx, Handover{From: 1, Epoch: 2}), "the module is Running on alpha"},
		"a definition of long ago":    {eb.OnDefine(ctx, Definition{Module: "web01", Text: []byte("old")}), ""},
	} {
		if got := errorText(c.err); (c.says == "") != (got == "") || !strings.Contains(got, c.says) {
			t.Errorf("%s: %q, want %q", name, got, c.says)
		}
	}
	own := ea.State()
	late := own
	late.Seq, late.Record.Epoch, late.Record.Holder = 0, 40, "alpha"
	foreign := own
	foreign.Incarnation, foreign.Record.Epoch, foreign.Seq = foreign.Incarnation+1, 41, foreign.Seq+1
	mine := own
	mine.Record = cluster.Record{Epoch: 42, Holder: "beta", Promised: 42, To: "beta"}
	empty := State{Incarnation: own.Incarnation, Seq: own.Seq}
	for _, s := range []State{late, foreign, mine, empty, {}} {
		if got := eb.OnTell(s); got.Module != "web01" || got.Record != records[1] {
			t.Errorf("told %+v it answers %+v", s, got)
		}
	}
	must(t, eb.Alive(ctx)) // behind what it was told
	p.inStep(a, b)
	p.writes(20)
	if now := known(); now != records {
		t.Errorf("the records were %+v and are %+v", records, now)
	}
	if after := journal(a) + journal(b); after != before {
		t.Errorf("nonsense led to\n%s", strings.TrimPrefix(after, before))
	}
	def, err := ea.Definition(ctx)
	if err != nil || def.Version != 1 || def.Module != "web01" || string(def.Text) != "<domain/>" {
		t.Errorf("the definition is %+v, %v", def, err)
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// TestAttachIsRefused: a primary that may not attach hears why, and what this node knows, from which it learns that it
// was deposed.
func TestAttachIsRefused(t *testing.T) {
	p := newPair(t)
	a, b := p.formed()
	vol := blockrepl.Lineage{Volume: "vol"}
	refused := func(n *simNode, h blockrepl.Hello) blockrepl.Refusal {
		t.Helper()
		in := asked{h, make(chan blockrepl.Refusal, 1)}
		must(t, n.running().OnAttach(t.Context(), in))
		return <-in.refused
	}
	for _, c := range []struct {
		n    *simNode
		h    blockrepl.Hello
		says string
	}{
		{b, blockrepl.Hello{}, " is not the peer of this module"},
		{b, blockrepl.Hello{Node: "gamma", Epoch: 1, Lineage: vol}, "gamma is not the peer of this module"},
		{b, blockrepl.Hello{Node: "alpha", Lineage: vol}, "rule 2: epoch 0 is over"},
		{b, blockrepl.Hello{Node: "alpha", Epoch: 1, Lineage: blockrepl.Lineage{Volume: "other"}},
			"this node has no such volume"},
		{a, blockrepl.Hello{Node: "beta", Epoch: 1, Lineage: vol}, "the module is PRIM (Ready) on alpha"},
	} {
		r := refused(c.n, c.h)
		if !strings.Contains(r.Reason, c.says) || r.Epoch != 1 || r.Holder != "alpha" {
			t.Errorf("%+v on %s: %+v, want %q", c.h, c.n.name, r, c.says)
		}
	}
	p.inStep(a, b)
	// A real volume takes no connection that is none. The primary's own is back a moment later.
	in := &asked{blockrepl.Hello{Node: "alpha", Epoch: 1, Lineage: b.lineage()}, nil}
	if err := b.running().OnAttach(t.Context(), in); !errors.Is(err, errForeignConnection) {
		t.Errorf("a connection that is none: %v", err)
	}
	p.sever()
	p.inStep(a, b)
	must(t, b.running().Command(t.Context(), appmodules.CmdStop, false))
	p.is(b, "STOP", "NotReady")
	r := refused(b, blockrepl.Hello{Node: "alpha", Epoch: 9, Lineage: vol})
	if !strings.Contains(r.Reason, "the module is STOP (NotReady) on beta") {
		t.Errorf("a stopped node says %+v", r)
	}
}

// lineage is that of the node's copy.
func (n *simNode) lineage() blockrepl.Lineage {
	n.p.t.Helper()
	_, l, err := n.logs.Load()
	must(n.p.t, err)
	return *l
}

// TestCompletionOfWhatIsNotThere: a node counts as complete only for the attachments that are there now, of volumes
// that are open.
func TestCompletionOfWhatIsNotThere(t *testing.T) {
	p := newPair(t)
	a, b := p.nodes["alpha"], p.nodes["beta"]
	var to *lossy
	a.bootAs(func(c *Config) { to = across(c) })
	to.complete.Store(ever)
	b.boot()
	says := func(c Complete, want string) {
		t.Helper()
		if err := b.running().OnComplete(t.Context(), c); !strings.Contains(errorText(err), want) {
			t.Errorf("%+v: %v, want %q", c, err, want)
		}
	}
	says(Complete{Epoch: 1}, "complete epoch 1: the volumes are not open")
	for _, n := range []*simNode{a, b} {
		must(t, n.running().Command(t.Context(), appmodules.CmdStart, false))
	}
	p.until("all is on beta, which was not told so", func() bool { return to.completed.Load() > 1 })
	says(Complete{Epoch: 1}, "complete epoch 1: volume vda is not connected")
	says(Complete{Epoch: 1, Tickets: map[string]blockrepl.Ticket{"vdb": {}, "": {}}}, "volume vda is not connected")
	says(Complete{Epoch: 1, Tickets: map[string]blockrepl.Ticket{"vda": {Link: 1}}}, "volume vda is not connected")
	if b.running().State().Record.IsComplete() {
		t.Error("beta counts as complete")
	}
	p.is(a, "PRIM", "Ready")
	// A swap that is typed now is a moment too early, and waited with.
	swapped := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() { swapped <- a.running().Command(ctx, appmodules.CmdSwap, false) }()
	to.complete.Store(0)
	if err := <-swapped; err != nil {
		t.Errorf("a swap a moment too early: %v", err)
	}
	p.inStep(b, a)
	p.writes(20)
}

// TestStrangerGetsNoVote: a node of the cluster that is not one of the module's gets no vote, whatever it claims, and
// changes nothing.
func TestStrangerGetsNoVote(t *testing.T) {
	p := newPair(t)
	a, b := p.formed()
	ans, err := b.running().OnAsk(t.Context(), cluster.Ask{Module: "web01", Node: "gamma", Epoch: 5, Complete: 4})
	if err != nil || ans.Yes {
		t.Errorf("the answer is %+v, %v", ans, err)
	}
	if rec := b.running().State().Record; rec.Holder != "alpha" {
		t.Errorf("beta's record is %+v", rec)
	}
	p.inStep(a, b)
	p.writes(20)
}
