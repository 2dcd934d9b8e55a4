package api

import (
	"slices"
	"strings"
)

// Meant asks whether somebody who wrote word meant one of those that there are: ", did you mean web01?", or nothing
// where none is like it. Like it are, whatever their case, those that a slip or two of the fingers makes of it, then
// those that begin with it, or end with it behind a dot; only the nearest are told.
func Meant(word string, known []string) string {
	var near []string
	best := far
	for _, k := range known {
		switch d := unlike(strings.ToLower(word), strings.ToLower(k)); {
		case d < best:
			best, near = d, []string{k}
		case d == best && d < far && !slices.Contains(near, k):
			near = append(near, k)
		}
	}
	if len(near) == 0 || len(near) > 5 { // which would be a list and no help
		return ""
	}
	return ", did you mean " + strings.Join(near, " or ") + "?"
}

// Known ends a sentence about a name that is none: ": there are web01, db", and before that the one that was meant.
func Known(name string, known []string) string {
	all := strings.Join(known, ", ")
	if meant := Meant(name, known); meant != "" {
		return meant + " There are " + all
	}
	return ": there are " + all
}

// far is how unlike two words are that have nothing to do with each other.
const far = 4

// unlike is how many slips lie between two words, more where one is only a part of the other, or far.
func unlike(word, known string) int {
	short := min(len(word), len(known))
	if short < 3 {
		return far
	}
	slips := distance(word, known)
	switch {
	case slips <= 1 || slips == 2 && short > 4:
		return slips
	case strings.HasPrefix(known, word), strings.HasSuffix(known, "."+word):
		return far - 1
	}
	return far
}

// distance counts the letters that were left out, added, exchanged or swapped with the next one.
func distance(a, b string) int {
	before, last := make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row := make([]int, len(b)+1)
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(row[j-1]+1, last[j]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last = last, row
	}
	return last[len(b)]
}
