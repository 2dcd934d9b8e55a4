package engine

import (
	"testing"

	"duet/appmodules"
)

// TestDefinitionFollows: an edit goes to the peer, also one made while the daemon was away, and
// the hypervisor gets what it may not have.
func TestDefinitionFollows(t *testing.T) {
	p := newPair(t)
	a, b := p.formed()
	text := func(n *simNode) string {
		def, err := n.hv.Definition(t.Context(), "web01")
		must(t, err)
		return string(def.Text)
	}
	must(t, a.hv.AdminEdit("web01", []byte("one")))
	p.until("the edit is on beta", func() bool { return text(b) == "one" })

	a.halt()
	must(t, a.hv.AdminEdit("web01", []byte("two")))
	a.boot()
	p.until("the edit made in the dark is on beta", func() bool { return text(b) == "two" })
	p.is(b, "SECOND", "Ready")

	// What beta's hypervisor has is not known: an older text may have been stored late.
	version := b.running().State().Definition
	must(t, b.running().OnDefine(t.Context(), Definition{Module: "web01", Version: version + 2, Text: []byte("four")}))
	must(t, b.running().OnDefine(t.Context(), Definition{Module: "web01", Version: version + 1, Text: []byte("three")}))
	if got := text(b); got != "four" {
		t.Errorf("an older definition replaced a newer one: %q", got)
	}
	must(t, b.running().call(t.Context(), func() { b.running().keep.Defined = 0 }))
	must(t, b.hv.AdminEdit("web01", []byte("three")))
	must(t, a.running().Command(t.Context(), appmodules.CmdSwap, false))
	p.is(b, "PRIM", "Ready")
	p.until("both have the newest", func() bool { return text(b) == "four" && text(a) == "four" })
}
