package docs

import (
	"slices"
	"strings"
	"testing"
)

// TestTablesAreRead: every row of both tables is found, and the words within a row too.
func TestTablesAreRead(t *testing.T) {
	for page, got := range map[string]int{glossary: len(Words()), troubleshooting: len(Troubles())} {
		if want := strings.Count(page, "\n| ") - 2*strings.Count(page, "\n| ---"); got != want || got < 15 {
			t.Errorf("%d rows of %d are read", got, want)
		}
	}
	for _, name := range []string{"epoch", "alone", "voter", "spare", "grant", "promise"} {
		if !slices.ContainsFunc(Words(), func(w Word) bool { return slices.Contains(w.Names, name) }) {
			t.Errorf("%q is not found", name)
		}
	}
	for _, w := range Words() {
		if strings.Contains(w.Text, "*") || w.Text == "" {
			t.Errorf("%s: %q", w.Names, w.Text)
		}
	}
}
