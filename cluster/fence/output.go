package fence

import (
	"bytes"
	"cmp"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// Bounds of what is kept of an agent's output, in bytes, and of the line that is shown.
const (
	maxOutput   = 8 << 10
	maxMetadata = 256 << 10
	maxLine     = 300 // runes
)

// tail is a writer that keeps the last max to 2·max bytes.
type tail struct {
	max  int
	kept []byte
	cut  bool
}

// Write never fails.
func (t *tail) Write(p []byte) (int, error) {
	n := len(p)
	if n > t.max {
		p, t.kept, t.cut = p[n-t.max:], t.kept[:0], true
	}
	if len(t.kept)+len(p) > 2*t.max {
		t.kept = append(t.kept[:0], t.kept[len(t.kept)-(t.max-len(p)):]...)
		t.cut = true
	}
	t.kept = append(t.kept, p...)
	return n, nil
}

// text is what was kept. A first line whose start is lost goes: a secret may be cut in two there.
func (t *tail) text() []byte {
	if !t.cut {
		return t.kept
	}
	_, rest, _ := bytes.Cut(t.kept, []byte("\n"))
	return rest
}

// logPrefix is what the agents write before a message.
var logPrefix = regexp.MustCompile(`^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d+ [A-Z]+: |[A-Z]+:root:)`)

// usageHint follows the reason when an option is missing.
const usageHint = "Please use '-h' for usage"

// lastLine is the last line of text that says something, fit to be shown: printable, bounded, and without
// the secrets of o.
func lastLine(text []byte, o Options) string {
	for len(text) > 0 {
		i := bytes.LastIndexByte(text, '\n')
		s := logPrefix.ReplaceAllString(strings.TrimSpace(printable(string(text[i+1:]))), "")
		text = text[:max(i, 0)]
		if s == "" || s == usageHint {
			continue
		}
		runes := []rune(o.clean(s))
		if len(runes) > maxLine {
			runes = append(runes[:maxLine], '…')
		}
		return string(runes)
	}
	return ""
}

// printable is s without what a terminal or a log would not show.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) || r == unicode.ReplacementChar {
			return -1
		}
		return r
	}, s)
}

// words are values of options that are no secret and that occur in ordinary sentences.
var words = regexp.MustCompile(`^(?i:[0-9]|on|off|yes|no|true|false)$`)

// clean hides the secrets of o in s, in the spellings in which agents print them.
func (o Options) clean(s string) string {
	forms := map[string]bool{}
	for name, value := range o {
		if shown[name] || words.MatchString(value) {
			continue
		}
		quoted := strconv.Quote(value)
		for _, form := range []string{value, url.QueryEscape(value), url.PathEscape(value), quoted[1 : len(quoted)-1]} {
			if form = strings.TrimSpace(printable(form)); form != "" {
				forms[form] = true
			}
		}
	}
	// The longest first: one secret may be part of another.
	byLength := slices.SortedFunc(maps.Keys(forms), func(a, b string) int {
		return cmp.Or(cmp.Compare(len(b), len(a)), cmp.Compare(a, b))
	})
	pairs := make([]string, 0, 2*len(byLength))
	for _, form := range byLength {
		pairs = append(pairs, form, mask)
	}
	return strings.NewReplacer(pairs...).Replace(s)
}
