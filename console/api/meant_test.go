package api_test

import (
	"strings"
	"testing"

	"duet/console/api"
)

// TestMeant: slips of the fingers, beginnings and ends of what there is are understood, and nothing else is guessed.
func TestMeant(t *testing.T) {
	known := strings.Fields("status start stop swap second web01 web02 db policy.restart.max policy.restart epoch WAIT")
	for word, want := range map[string]string{
		"stauts": "status", "statsu": "status", "status1": "status", "sttus": "status",
		"web1": "web01", "web0": "web01 or web02", "Web01": "web01",
		"restart.max": "policy.restart.max", "policy.restrat": "policy.restart", "max": "policy.restart.max",
		"policy.restarts": "policy.restart", "wait": "WAIT", "epochs": "epoch",
		"": "", "d": "", "dbx": "", "mysql": "", "quorum": "", "xx": "", "art": "",
	} {
		if want != "" {
			want = ", did you mean " + want + "?"
		}
		if got := api.Meant(word, known); got != want {
			t.Errorf("%q: %q, want %q", word, got, want)
		}
	}
	if got := api.Meant("web", strings.Fields("web1 web2 web3 web4 web5 web6")); got != "" {
		t.Errorf("a list is no help: %q", got)
	}
}
