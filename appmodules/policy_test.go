package appmodules

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

// TestProofPolicy: the pass of a proof as admins write it, and as older versions do not.
func TestProofPolicy(t *testing.T) {
	for text, want := range map[string]time.Duration{"week": week, "168h0m0s": week, "48h0m0s": 48 * time.Hour, "off": 0} {
		var p ProofPass
		if err := p.UnmarshalText([]byte(text)); err != nil || p.Every() != want {
			t.Errorf("%s: %v, %v", text, p.Every(), err)
		}
		written, err := p.MarshalText()
		var again ProofPass
		if err != nil || again.UnmarshalText(written) != nil || again.Every() != want {
			t.Errorf("%s is written %s: %v", text, written, err)
		}
	}
	for _, text := range []string{"", "0s", "-1h", "7", "daily"} {
		var p ProofPass
		if p.UnmarshalText([]byte(text)) == nil {
			t.Errorf("%q is taken for %v", text, p)
		}
	}
	// A default is not told, so that a node of an older version reads what it knows.
	b, err := json.Marshal(DefaultPolicy())
	if err != nil || strings.Contains(string(b), "proof") {
		t.Errorf("%s, %v", b, err)
	}
	p := DefaultPolicy()
	p.Proof, p.ProofRepair = proofOff, RepairAuto
	var read Policy
	if b, err = json.Marshal(p); err != nil || json.Unmarshal(b, &read) != nil || read.Proof.Every() != 0 ||
		read.ProofRepair != RepairAuto {
		t.Errorf("%s is read as %+v", b, read)
	}
	for _, c := range []struct {
		pass   ProofPass
		repair ProofRepair
		faults int
	}{{0, "", 0}, {proofOff, RepairAuto, 0}, {ProofPass(time.Hour), RepairAsk, 0}, {ProofPass(time.Second), RepairAsk, 1},
		{ProofPass(60 * week), "never", 2}} {
		p.Proof, p.ProofRepair = c.pass, c.repair
		if f := p.Validate([]string{"a", "b"}); len(f) != c.faults {
			t.Errorf("%v, %q: %v", c.pass, c.repair, f)
		}
	}
}

// TestFaultsHaveAnOrder: where only one fault is told it is the same one each time; older nodes have stored mistakes,
// and they are no fault.
func TestFaultsHaveAnOrder(t *testing.T) {
	p := DefaultPolicy()
	p.Restart.Window, p.Start.Delay, p.On = -1, -1, On{}
	for range 50 {
		var got []string
		for _, f := range p.Validate([]string{"a", "b"}) {
			got = append(got, strings.TrimPrefix(f.Path, "policy."))
		}
		if all := strings.Join(got, " "); all != "restart.window start.delay on.crash on.panic on.shutdown on.admin" {
			t.Fatalf("the faults are %s", all)
		}
	}
	p = DefaultPolicy()
	p.Failback, p.Restart.Max = "auto", maxRestarts+1
	if f := p.Validate([]string{"a", "b"}); len(f) > 0 || len(p.Mistakes()) != 2 {
		t.Errorf("faults %v, mistakes %v", f, p.Mistakes())
	}
	p.Primary, p.Restart.Max = "a", maxRestarts
	if f := p.Mistakes(); len(f) > 0 {
		t.Errorf("mistakes %v", f)
	}
}
