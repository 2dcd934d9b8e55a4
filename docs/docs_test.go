package docs

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"duet/appmodules"
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

// TestEveryState: the README says what to do in each state that status can show.
func TestEveryState(t *testing.T) {
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	said := func(state string) bool {
		row := regexp.MustCompile(`(?m)^\| ` + state + ` \| (\w+) \| [^|]+ \| [^|]+ \|$`)
		return row.Match(readme)
	}
	seen := map[string]bool{}
	for _, row := range appmodules.Table() {
		for _, phase := range []appmodules.Phase{row.From, row.To} {
			for link := appmodules.NoLink; link <= appmodules.InStep; link++ {
				role, status := appmodules.Machine{Phase: phase, Link: link}.Display()
				seen[fmt.Sprintf("%s %s", role, status)] = true
			}
		}
	}
	for state := range seen {
		_, status, _ := strings.Cut(state, " ")
		if !said(state) && !said("… "+status) {
			t.Errorf("the README does not say what to do in %s", state)
		}
	}
	if len(seen) < 7 {
		t.Errorf("only %d states were seen", len(seen))
	}
}
