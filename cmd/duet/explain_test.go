package main

import (
	"strings"
	"testing"

	"duet/appmodules"
)

// TestExplainPairs: a state is explained as status shows it, in two words, and an article is no word.
func TestExplainPairs(t *testing.T) {
	for _, word := range []string{"WAIT NotReady", "PRIM Ready", "alone transient"} {
		role, status, _ := strings.Cut(word, " ")
		got := explain(word)
		if !strings.Contains(got.Text, explain(role).Text) || !strings.Contains(got.Text, explain(status).Text) ||
			len(got.Troubles) != len(explain(role).Troubles) {
			t.Errorf("%s: %+v", word, got)
		}
	}
	if len(explain("WAIT NotReady").Troubles) == 0 || len(explain("witness").Troubles) == 0 {
		t.Error("it is not said what to do")
	}
	if got := explain("a"); got.Text != "" || got.Troubles != nil {
		t.Errorf("an article: %+v", got)
	}
}

// TestExplainStates: every word that status shows as a state is explained.
func TestExplainStates(t *testing.T) {
	words := []string{"?", "OK", "DEGRADED", "DOWN", "leaving", "overdue"}
	for _, row := range appmodules.Table() {
		role, status := appmodules.Machine{Phase: row.To}.Display()
		words = append(words, role.String(), status.String())
	}
	for _, w := range words {
		if explain(w).Text == "" {
			t.Errorf("%q is not explained", w)
		}
	}
}

// TestExplainPromisesNoCopy: PRIM Ready is shown while the second copy is being made, too.
func TestExplainPromisesNoCopy(t *testing.T) {
	for _, word := range []string{"PRIM", "PRIM Ready"} {
		if got := explain(word).Text; !strings.Contains(got, "when SECOND is Ready beside it") {
			t.Errorf("%s: %s", word, got)
		}
	}
	for word, want := range map[string]string{"DIRTY": "written without the peer", "SYNC": "first copy",
		"OK": "shutting down", "DEGRADED": "nobody decides"} {
		if got := explain(word).Text; !strings.Contains(got, want) {
			t.Errorf("%s: %s", word, got)
		}
	}
}
