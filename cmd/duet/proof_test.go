package main

import (
	"strings"
	"testing"
	"time"

	"duet/console/api"
	"duet/console/api/apitest"
)

// TestProofText: how a proof stands, in all its ways.
func TestProofText(t *testing.T) {
	now := apitest.Now()
	a := &app{now: apitest.Now}
	for name, c := range map[string]struct {
		v    api.Volume
		want []string
		not  string
	}{
		"well": {volume("connected", &now, api.Proof{Age: 7200, Pass: 3600, Done: 25, Ends: &now}),
			[]string{"was last found the same on both nodes 2h ago", "25 % of this comparison are done, it ends 20"}, "later"},
		"never": {volume("connected", nil, api.Proof{Age: 60, Pass: 3600, Ends: &now}),
			[]string{"is not yet found the same on both nodes as a whole, 1m after they became a pair", " 0 % of"}, "differ"},
		"late": {volume("connected", &now, api.Proof{Age: 60, Pass: 604800, Ends: &now, Late: true}),
			[]string{"later than wished (7d): it uses at most 2 % of the disks' time"}, "policy"},
		"off": {volume("connected", &now, api.Proof{Age: 60}),
			[]string{"nothing compares it in the background (policy.proof: off)"}, "ends"},
		"alone": {volume("alone", &now, api.Proof{Age: 60, Pass: 60, Ends: &now}),
			[]string{"goes on when both copies are in step"}, "ends"},
		"different": {volume("connected", &now, api.Proof{Age: 60, Pass: 60, Ends: &now, Differs: 128 << 10}),
			[]string{"128 KiB of it differ"}, "policy"},
	} {
		got := a.proofText(c.v)
		for _, want := range c.want {
			if !strings.Contains(got, want) {
				t.Errorf("%s: %q does not say %q", name, got, want)
			}
		}
		if strings.Contains(got, c.not) || !strings.HasSuffix(got, ".") {
			t.Errorf("%s: %q", name, got)
		}
	}
}

func volume(state string, proven *time.Time, p api.Proof) api.Volume {
	return api.Volume{VolumeStatus: api.VolumeStatus{Name: "db/vda", State: state, Size: 100, Proven: proven, Proof: &p}}
}
