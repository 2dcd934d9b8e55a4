package node

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"duet/appmodules/engine"
	"duet/blockrepl"
	"duet/console/api"
)

// proofStatus turns how a proof stands into the API's words.
func proofStatus(p *engine.ProofStatus) *api.Proof {
	if p == nil {
		return nil
	}
	l := p.Ledger
	out := &api.Proof{Age: l.Age(time.Now()).Seconds(), Pass: p.Pass.Seconds(), Done: l.At, Ended: moment(l.Ended),
		Ends: known(p.Ends), Late: p.Late, Differs: l.Differs()}
	for _, at := range l.Open {
		place := api.ProofPlace{Off: at.Off, Len: at.Len, Bytes: int64(at.Regions) * blockrepl.RegionSize,
			Changed: at.Changed, Found: time.UnixMilli(at.Found), Proven: moment(at.Proven)}
		if at.Both {
			place.Changed = "both"
		}
		out.Places = append(out.Places, place)
	}
	return out
}

// moment is a time in Unix ms; nil for 0.
func moment(ms int64) *time.Time {
	if ms == 0 {
		return nil
	}
	return known(time.UnixMilli(ms))
}

var (
	volumeProofAge = desc("volume_proof_age_seconds",
		"Time since the oldest part of the volume was last found the same on both nodes; "+
			"a part that never was counts from when the copies became a pair.",
		"module", "volume")
	volumeDiffers = desc("volume_differs_bytes", "Bytes in which the copies are known to differ: alert when it is not 0.",
		"module", "volume")
)

// collectProof sends the figures of a proof, of which only the node that leads has one.
func collectProof(send func(*prometheus.Desc, prometheus.ValueType, float64), p *engine.ProofStatus) {
	if p == nil {
		return
	}
	send(volumeProofAge, prometheus.GaugeValue, p.Ledger.Age(time.Now()).Seconds())
	send(volumeDiffers, prometheus.GaugeValue, float64(p.Ledger.Differs()))
}
