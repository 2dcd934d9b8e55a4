package mirror

import (
	"time"

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
