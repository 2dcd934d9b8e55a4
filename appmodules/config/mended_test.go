package config

import (
	"errors"
	"strings"
	"testing"
)

// TestSetToNothing: a value that is only a comment, or blank, is refused and does not panic.
func TestSetToNothing(t *testing.T) {
	for _, value := range []string{" ", "# x", "~"} {
		func() {
			defer func() {
				if r := recover(); r != nil {
					t.Errorf("%q: panic: %v", value, r)
				}
			}()
			if _, err := Set([]byte(block), "kind", value); err != nil && !errors.Is(err, ErrFaulty) {
				t.Errorf("%q: %v", value, err)
			}
		}()
	}
}

// TestSecondDocument: what follows the first document is not left out in silence.
func TestSecondDocument(t *testing.T) {
	if _, err := Parse("f.yaml", []byte(block+"---\n"+strings.Replace(block, "max: 3", "max: 9", 1))); err == nil {
		t.Error("the second document is ignored")
	}
}

// TestNoWholeNumber: a number with a fraction is refused in words for people.
func TestNoWholeNumber(t *testing.T) {
	for _, n := range []string{"3.5", "3.0"} {
		m, err := Parse("f.yaml", []byte(strings.Replace(block, "max: 3", "max: "+n, 1)))
		if err == nil || strings.Contains(err.Error(), "Go ") || !strings.Contains(err.Error(), "policy.restart.max") {
			t.Errorf("%s: max is %d, %v", n, m.Policy.Restart.Max, err)
		}
	}
}

// TestParseOntoNothing: a text of comments only leaves everything as it is.
func TestParseOntoNothing(t *testing.T) {
	m, err := Parse("f", []byte(block))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ParseOnto(m, "part", []byte("# nothing yet\n")); err != nil {
		t.Errorf("%v", err)
	}
}
