// Package field follows the README on real Debian machines: the commands are read out of it, so that what it prints is
// what works. `make field` does it on pairs of Debian 12, of 13 and of both: containers,
// and emulated machines with Debian's own kernel and AppArmor (-kind emulated).
//
// The README's addresses are those of the machines. What only a run can tell, such as a token, stands there as a
// placeholder with an ellipsis and is filled in from what an earlier command printed; one that nobody fills in is an
// error.
package field

import (
	"bufio"
	"fmt"
	"io"
	"regexp"
	"strings"
)

// Line is a command as the README prints it.
type Line struct {
	Number  int    // in the file, from 1
	Node    string // whose prompt it stands behind
	Command string // without the comment that may follow it
}

var (
	prompt  = regexp.MustCompile(`^\s*([a-z]+)#\s+(.+)$`)
	comment = regexp.MustCompile(`\s{2,}# .*$`)
	// placeholder finds what is to be filled in: what has an ellipsis, a word in capitals.
	placeholder = regexp.MustCompile(`[^\s=]*…\S*|[A-Z]{3,}`)
)

// Read returns the commands with a prompt in the fenced blocks of a Markdown text, block by block.
func Read(r io.Reader) ([][]Line, error) {
	var blocks [][]Line
	var block []Line
	fenced := false
	scan := bufio.NewScanner(r)
	for n := 1; scan.Scan(); n++ {
		text := scan.Text()
		if strings.HasPrefix(strings.TrimSpace(text), "```") {
			if fenced && len(block) > 0 {
				blocks = append(blocks, block)
			}
			fenced, block = !fenced, nil
			continue
		}
		if m := prompt.FindStringSubmatch(text); fenced && m != nil {
			block = append(block, Line{Number: n, Node: m[1], Command: strings.TrimSpace(comment.ReplaceAllString(m[2], ""))})
		}
	}
	return blocks, scan.Err()
}

// Fill returns the command with each placeholder replaced. A placeholder is part of a word, such as duet1.… or THIRD.
func (l Line) Fill(values map[string]string) (string, error) {
	var missing string
	filled := placeholder.ReplaceAllStringFunc(l.Command, func(name string) string {
		value, known := values[name]
		if !known {
			missing = name
		}
		return value
	})
	if missing != "" {
		return "", fmt.Errorf("README line %d, %q: nothing is known to fill in for %s", l.Number, l.Command, missing)
	}
	return filled, nil
}
