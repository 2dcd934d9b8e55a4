package main

import (
	"testing"

	"duet/appmodules"
)

// TestExplainStates: every word that status shows as a state is explained.
func TestExplainStates(t *testing.T) {
	words := []string{"?", "OK", "DEGRADED", "DOWN"}
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
