package node

import (
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"duet/appmodules/engine"
	"duet/blockrepl/proof"
)

// TestProofFigures: what an engine knows of a proof is what the API and the metrics say.
func TestProofFigures(t *testing.T) {
	if proofStatus(nil) != nil {
		t.Error("a node that does not lead has no proof")
	}
	began := time.Now().Add(-time.Hour)
	l := proof.New("id", 3*proof.Step, began)
	l.Looked(began.Add(time.Minute), 0, nil)
	l.Looked(began.Add(2*time.Minute), proof.Step, &proof.Place{Off: proof.Step, Len: 128 << 10, Regions: 2, Changed: "beta"})
	p := &engine.ProofStatus{Ledger: l, Pass: time.Hour, Ends: began.Add(time.Hour), Late: true}
	got := proofStatus(p)
	if got.Age < 3600 || got.Age > 3660 || got.Pass != 3600 || got.Done != 2*proof.Step || got.Ended != nil || got.Ends == nil ||
		!got.Late || got.Differs != 128<<10 || len(got.Places) != 1 {
		t.Errorf("%+v", got)
	}
	if at := got.Places[0]; at.Off != proof.Step || at.Bytes != 128<<10 || at.Changed != "beta" || at.Proven != nil {
		t.Errorf("%+v", at)
	}
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(collected{{Target: "vda", Proof: p}, {Target: "vdb"}})
	w := httptest.NewRecorder()
	promhttp.HandlerFor(r, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	text := w.Body.String()
	for _, want := range []string{`duet_volume_differs_bytes{module="db",volume="vda"} 131072`, `duet_volume_proof_age_seconds{module="db",volume="vda"} 36`} {
		if !strings.Contains(text, want) {
			t.Errorf("%s is not in\n%s", want, text)
		}
	}
	if strings.Contains(text, `proof_age_seconds{module="db",volume="vdb"}`) {
		t.Error("the age of a proof that there is not")
	}
}

// collected are the volumes of module db.
type collected []engine.VolumeStatus

func (collected) Describe(chan<- *prometheus.Desc) {}

func (v collected) Collect(out chan<- prometheus.Metric) {
	for _, st := range v {
		collectVolume(out, "db", st)
	}
}
