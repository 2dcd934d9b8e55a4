// Package docs is what of the documentation the programs show themselves, so that a word has one explanation. The
// pages are built in: a program explains the release that it is of. Pages and their readers change together: a test
// counts the rows.
package docs

import (
	_ "embed"
	"strings"
)

//go:embed glossary.md
var glossary string

//go:embed troubleshooting.md
var troubleshooting string

// Word is one word of the glossary, as the page writes it: mostly in lower case.
type Word struct {
	Name string
	Text string // what it means: a sentence or two
}

// Words are those of the glossary, in its order; two of one name are a mistake in the page. A row of n names has n
// meanings, parted by "; ": fewer are a mistake too, and a panic, which the tests find.
func Words() []Word {
	var out []Word
	for _, cells := range rows(glossary, 2) {
		names, means := strings.Split(cells[0], ", "), []string{cells[1]}
		if len(names) > 1 {
			means = strings.SplitN(cells[1], "; ", len(names)) // one after the other
		}
		for i, name := range names {
			out = append(out, Word{name, plain(means[i])})
		}
		// Words that a row explains beside its own are in italics, in sentences of their own.
		for sentence := range strings.SplitSeq(cells[1], ". ") {
			for i, part := range strings.Split(sentence, "*") {
				if i%2 == 1 {
					out = append(out, Word{strings.ToLower(part), plain(sentence)})
				}
			}
		}
	}
	return out
}

// Trouble is one row of the table of what can be wrong. All three are text without the page's marks.
type Trouble struct{ See, Because, Do string }

// Troubles are the rows of that table, in its order.
func Troubles() []Trouble {
	var out []Trouble
	for _, cells := range rows(troubleshooting, 3) {
		out = append(out, Trouble{plain(cells[0]), plain(cells[1]), plain(cells[2])})
	}
	return out
}

// rows are the cells of the tables with n columns, without their heads. A line that has another number of cells, as
// one with a bar in a cell, is left out.
func rows(page string, n int) [][]string {
	var out [][]string
	head := true
	for line := range strings.Lines(page) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "| ") {
			head = true
			continue
		}
		cells := strings.Split(strings.Trim(line, "|"), " | ")
		switch {
		case len(cells) != n:
		case strings.HasPrefix(strings.TrimSpace(cells[0]), "---"):
			head = false
		case !head:
			for i := range cells {
				cells[i] = strings.TrimSpace(cells[i])
			}
			out = append(out, cells)
		}
	}
	return out
}

// plain drops what only a page shows.
func plain(text string) string { return strings.NewReplacer("*", "").Replace(text) }
