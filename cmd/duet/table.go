package main

import (
	"io"
	"strings"
	"unicode/utf8"
)

// style is how a cell is shown on a terminal.
type style string

// The styles, as ANSI codes.
const (
	plain  style = ""
	red    style = "31"
	orange style = "33" // yellow, by its name
	green  style = "32"
	bold   style = "1"
	dim    style = "2"
)

// paint wraps text in its style if colour is wanted.
func paint(s style, text string, color bool) string {
	if !color || s == plain || text == "" {
		return text
	}
	return "\x1b[" + string(s) + "m" + text + "\x1b[0m"
}

// cell is one text of a table. It is cleaned when it is written, so that text of others may stand in it as it is.
type cell struct {
	text  string
	style style
}

// row is one line and a sentence below it. It may have fewer cells than the head, not more.
type row struct {
	cells []cell
	note  string
}

// table is written aligned. text/tabwriter would count colour codes as width and begin new columns after each
// sentence, so widths are counted here: in runes, without the codes. A note never widens a column.
type table struct {
	head []string
	rows []row
	// noteAt is the column below which sentences stand, width that of the terminal, at which they are broken; 0: they are
	// not.
	noteAt, width int
}

// narrowest is the width below which breaking lines helps nobody.
const narrowest = 30

// wrap breaks text into lines of at most width runes, at spaces; a word that is longer stays whole. It returns at
// least one line; where the width is not known, or too small to help, just that one.
func wrap(text string, width int) []string {
	if width < narrowest {
		return []string{text}
	}
	var out []string
	line := ""
	for word := range strings.FieldsSeq(text) {
		switch {
		case line == "":
			line = word
		case utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > width:
			out = append(out, line)
			line = word
		default:
			line += " " + word
		}
	}
	return append(out, line)
}

func (t *table) add(cells ...cell) { t.rows = append(t.rows, row{cells: cells}) }

// note puts a sentence below the last row, in place of one that was there; there has to be a row.
func (t *table) note(s string) { t.rows[len(t.rows)-1].note = s }

// write writes the table with two spaces between columns and none at the end of a line, in one Write: a table is
// whole or cut off by its reader.
func (t *table) write(w io.Writer, color bool) error {
	widths := make([]int, len(t.head))
	for i, h := range t.head {
		widths[i] = utf8.RuneCountInString(h)
	}
	for _, r := range t.rows {
		for i, c := range r.cells {
			widths[i] = max(widths[i], utf8.RuneCountInString(clean(c.text)))
		}
	}
	var b strings.Builder
	line := func(cells []cell) {
		// Blanks are written before the next text only, so none end a line, and colour codes do not count.
		pad := 0
		for i, c := range cells {
			text := clean(c.text)
			if text != "" {
				b.WriteString(strings.Repeat(" ", pad) + paint(c.style, text, color))
				pad = 0
			}
			pad += widths[i] - utf8.RuneCountInString(text) + 2
		}
		b.WriteByte('\n')
	}
	head := make([]cell, len(t.head))
	for i, h := range t.head {
		head[i] = cell{h, bold}
	}
	line(head)
	indent := 0
	for _, width := range widths[:t.noteAt] {
		indent += width + 2
	}
	for _, r := range t.rows {
		line(r.cells)
		if r.note != "" {
			for _, part := range wrap(clean(r.note), t.width-indent) {
				b.WriteString(strings.Repeat(" ", indent) + part + "\n")
			}
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}
