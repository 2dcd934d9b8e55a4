package mirror

import (
	"testing"
	"time"

	"duet/appmodules/engine"
	"duet/blockrepl/proof"
)

// TestProofWords: what an engine knows of a proof is what the API says.
func TestProofWords(t *testing.T) {
	if proofStatus(nil) != nil {
		t.Error("a node that does not lead has no proof")
	}
	began := time.Now().Add(-time.Hour)
	l := proof.New("id", 3*proof.Step, began)
	l.Looked(began.Add(time.Minute), 0, nil)
	l.Looked(began.Add(2*time.Minute), proof.Step, &proof.Place{Off: proof.Step, Len: 128 << 10, Regions: 2,
		Changed: "beta"})
	got := proofStatus(&engine.ProofStatus{Ledger: l, Pass: time.Hour, Ends: began.Add(time.Hour), Late: true})
	if got.Age < 3600 || got.Age > 3660 || got.Pass != 3600 || got.Done != 2*proof.Step || got.Ended != nil ||
		got.Ends == nil || !got.Late || got.Differs != 128<<10 || len(got.Places) != 1 {
		t.Errorf("%+v", got)
	}
	if at := got.Places[0]; at.Off != proof.Step || at.Bytes != 128<<10 || at.Changed != "beta" || at.Proven != nil {
		t.Errorf("%+v", at)
	}
}
