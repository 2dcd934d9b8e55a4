// Package field follows the README on real Debian machines: the commands are read out of it, so that what it prints is
// what works. `make field` does it on pairs of Debian 12, of 13 and of both.
//
// The README's addresses are those of the machines. What only a run can tell, such as a token, stands there as a
// placeholder with an ellipsis and is filled in from what an earlier command printed; one that nobody fills in is an error.
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
	// placeholder finds what is left to fill in: an ellipsis, a word in capitals.
	placeholder = regexp.MustCompile(`\S*…\S*|\b[A-Z]{3,}\b`)
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

// Fill returns the command with each placeholder replaced. A placeholder is a word of the README, such as duet1.… or
// THIRD.
func (l Line) Fill(values map[string]string) (string, error) {
	words := strings.Fields(l.Command)
	for i, word := range words {
		for from, to := range values {
			word = strings.ReplaceAll(word, from, to)
		}
		words[i] = word
	}
	filled := strings.Join(words, " ")
	if left := placeholder.FindString(filled); left != "" {
		return "", fmt.Errorf("README line %d, %q: nothing is known to fill in for %s", l.Number, l.Command, left)
	}
	return filled, nil
}
