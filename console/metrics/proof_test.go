package metrics

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

// TestProofFigures: the node that leads tells how old its proof is and what differs.
func TestProofFigures(t *testing.T) {
	began := time.Now().Add(-time.Hour)
	l := proof.New("id", 3*proof.Step, began)
	l.Looked(began.Add(2*time.Minute), proof.Step, &proof.Place{Off: proof.Step, Len: 128 << 10, Regions: 2,
		Changed: "beta"})
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(collected{{Target: "vda", Proof: &engine.ProofStatus{Ledger: l, Pass: time.Hour}}, {Target: "vdb"}})
	w := httptest.NewRecorder()
	promhttp.HandlerFor(r, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	text := w.Body.String()
	for _, want := range []string{`duet_volume_differs_bytes{module="db",volume="vda"} 131072`,
		`duet_volume_proof_age_seconds{module="db",volume="vda"} 36`} {
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
