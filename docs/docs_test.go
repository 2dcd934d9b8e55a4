package docs

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"duet/appmodules"
)

// TestTablesAreRead: every row of both tables is found, and the words within a row too, each with its own meaning.
func TestTablesAreRead(t *testing.T) {
	for page, got := range map[string]int{glossary: len(rows(glossary, 2)), troubleshooting: len(Troubles())} {
		if want := strings.Count(page, "\n| ") - 2*strings.Count(page, "\n| ---"); got != want || got < 15 {
			t.Errorf("%d rows of %d are read", got, want)
		}
	}
	for name, want := range map[string]string{"epoch": "number of the present right to write", "vote": "one voter's yes",
		"host": "Host is the physical machine", "spare": "Spare: a witness"} {
		if !slices.ContainsFunc(Words(), func(w Word) bool { return w.Name == name && strings.HasPrefix(w.Text, want) }) {
			t.Errorf("%q is not explained by %q", name, want)
		}
	}
	seen := map[string]bool{}
	for _, w := range Words() {
		if strings.Contains(w.Text, "*") || w.Text == "" || seen[w.Name] {
			t.Errorf("%s: %q", w.Name, w.Text)
		}
		seen[w.Name] = true
	}
}

// TestReadmeIsShort: a reader comes to the first command after 250 words, on lines that fit.
func TestReadmeIsShort(t *testing.T) {
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	before, _, ok := strings.Cut(string(readme), "make demo ")
	before = regexp.MustCompile(`\]\([^)]*\)`).ReplaceAllString(before, "]")
	if n := len(regexp.MustCompile(`[A-Za-z0-9][A-Za-z0-9'.-]*`).FindAllString(before, -1)); !ok || n > 250 {
		t.Errorf("%d words before the first command", n)
	}
	number := 0
	for line := range strings.Lines(string(readme)) {
		if number++; utf8.RuneCountInString(strings.TrimRight(line, "\n")) > 120 {
			t.Errorf("line %d is longer than 120 characters", number)
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
