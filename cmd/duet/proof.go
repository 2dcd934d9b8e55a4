package main

import (
	"fmt"
	"io"
	"time"

	"duet/console/api"
)

// writeProofs writes a sentence on the proof of each volume on the node that leads: that one compares, and its peer
// has none to tell of. What was last heard of a node that is away (Stale) is no proof now.
func (a *app) writeProofs(w io.Writer, vols []api.Volume) error {
	for _, v := range vols {
		if v.Proof == nil || v.Stale {
			continue
		}
		if _, err := fmt.Fprintf(w, "%s %s\n", clean(v.Name), a.proofText(v)); err != nil {
			return err
		}
	}
	return nil
}

// proofText is how a proof stands, as the second half of a sentence: how old the oldest part is, what differs, and
// when the present pass ends or why none goes on. v.Proof is not nil.
func (a *app) proofText(v api.Volume) string {
	p := v.Proof
	age := ageText(time.Duration(p.Age * float64(time.Second)))
	text := fmt.Sprintf("was last found the same on both nodes %s ago, in its oldest part", age)
	if v.Proven == nil {
		text = fmt.Sprintf("is not yet found the same on both nodes as a whole, %s after they became a pair", age)
	}
	if p.Differs > 0 {
		text += fmt.Sprintf("; %s of it differ", bytesText(p.Differs))
	}
	switch {
	case p.Pass == 0:
		return text + "; nothing compares it in the background (policy.proof: off)."
	// A copy that catches up differs by right.
	case v.State != "connected":
		return text + "; the comparison goes on when both copies are in step."
	case p.Ends == nil:
		return text + "."
	}
	text += fmt.Sprintf("; %.0f %% of this comparison are done, it ends %s", 100*float64(p.Done)/float64(max(v.Size, 1)),
		p.Ends.Local().Format("2006-01-02 15:04"))
	if p.Late {
		text += fmt.Sprintf(", later than wished (%s): it uses at most 2 %% of the disks' time",
			durationText(time.Duration(p.Pass*float64(time.Second))))
	}
	return text + "."
}
