package enroll

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	tok, rec := New("duet1", [32]byte{1, 2, 3}, time.Time{})
	text := tok.String()
	got, err := Parse("duet1", "  "+strings.ToUpper(text)+"\n")
	if err != nil || string(got.Secret) != string(tok.Secret) || got.Pin != tok.Pin || got.String() != text {
		t.Errorf("%v %v", got, err)
	}
	for _, bad := range []string{"", "duet1", "duet2" + text[5:], text[:80], text + "a", text + ".a",
		strings.Replace(text, ".", "..", 1), text[:len(text)-1] + "1"} {
		if _, err := Parse("duet1", bad); !errors.Is(err, ErrMalformed) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	other, _ := New("duet1", tok.Pin, time.Time{})
	records := []Record{{Hash: []byte("x")}, rec}
	if i, j := find(records, tok.Secret), find(records, other.Secret); i != 1 || j != -1 {
		t.Errorf("found %d and %d", i, j)
	}
}

func TestFresh(t *testing.T) {
	now := time.Unix(1e9, 0)
	records := []Record{{Expires: now.Add(-25 * time.Hour)}, {Expires: now.Add(-23 * time.Hour), UsedBy: []byte("a")}}
	left := fresh(records, now)
	if len(left) != 1 || !left[0].used([]byte("a")) || left[0].used([]byte("b")) || len(records) != 2 ||
		records[0].Expires.IsZero() {
		t.Errorf("%v of %v", left, records)
	}
}

func FuzzParse(f *testing.F) {
	tok, _ := New("duet1", [32]byte{}, time.Time{})
	f.Add(tok.String())
	f.Add("duet1.a.b")
	f.Fuzz(func(t *testing.T, s string) {
		tok, err := Parse("duet1", s)
		if err == nil && tok.String() != strings.ToLower(strings.TrimSpace(s)) {
			t.Errorf("%q parses to %q", s, tok)
		}
	})
}
