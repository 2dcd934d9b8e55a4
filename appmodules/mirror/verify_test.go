package mirror

import (
	"errors"
	"strings"
	"testing"
	"time"

	"duet/blockrepl"
)

// TestVerdict: copies that differ, and still do, are a failure, so that the command exits with 1; one is told as one.
func TestVerdict(t *testing.T) {
	cut := errors.New("the link was lost")
	for _, c := range []struct {
		done blockrepl.VerifyDone
		said string
		fail string
	}{
		{blockrepl.VerifyDone{At: time.Unix(0, 0)}, "both copies of web01/vda are identical", ""},
		{blockrepl.VerifyDone{Count: 1, Repaired: 1}, "1 region of web01/vda differed and was repaired", ""},
		{blockrepl.VerifyDone{Count: 2, Repaired: 2}, "2 regions of web01/vda differed and were repaired", ""},
		{blockrepl.VerifyDone{Count: 1, Differs: []int64{7}}, "", "1 region of web01/vda differs, the first at byte 7"},
		{blockrepl.VerifyDone{Count: 2, Repaired: 1, Differs: []int64{7, 9}}, "", "2 regions of web01/vda differ, the first"},
		{blockrepl.VerifyDone{Err: cut}, "", cut.Error()},
	} {
		said, err := verdict("web01/vda", c.done)
		if !strings.HasPrefix(said, c.said) || (said == "") != (c.said == "") || (err == nil) != (c.fail == "") ||
			err != nil && !strings.HasPrefix(err.Error(), c.fail) {
			t.Errorf("%+v: %q, %v", c.done, said, err)
		}
	}
}

// TestVerdictOfWhatWasCompared: only what was compared in full is called identical; what could not be read is told,
// whatever else was found.
func TestVerdictOfWhatWasCompared(t *testing.T) {
	const blind = "2 regions of web01/vda were not compared"
	for _, c := range []struct {
		what      string
		d         blockrepl.VerifyDone
		says      []string
		identical bool
	}{
		{"all was compared", blockrepl.VerifyDone{Checked: 1 << 20}, nil, true},
		{"mended from the peer", blockrepl.VerifyDone{Mended: 1}, nil, true},
		{"neither copy can be read", blockrepl.VerifyDone{Unreadable: 2}, []string{blind}, false},
		{"all that differed is repaired", blockrepl.VerifyDone{Count: 3, Repaired: 3}, []string{"were repaired"}, false},
		{"repaired, but not all was compared", blockrepl.VerifyDone{Count: 3, Repaired: 3, Unreadable: 2},
			[]string{"3 regions of web01/vda differed and were repaired", blind}, false},
		{"the copies differ, and not all was compared",
			blockrepl.VerifyDone{Count: 1, Differs: []int64{65536}, Unreadable: 2},
			[]string{"the first at byte 65536", "--repair", blind}, false},
		{"it did not reach the end", blockrepl.VerifyDone{Unreadable: 2, Err: errors.New("peer lost")}, []string{""}, false},
	} {
		got, err := verdict("web01/vda", c.d)
		if err != nil {
			got = err.Error()
		}
		if c.d.Unreadable > 0 && err == nil {
			t.Errorf("%s: it counts as done", c.what)
		}
		for _, want := range c.says {
			if !strings.Contains(got, want) {
				t.Errorf("%s: %q, want %q", c.what, got, want)
			}
		}
		if strings.Contains(got, "identical") != c.identical {
			t.Errorf("%s: %q", c.what, got)
		}
		if (c.d.Unreadable == 0 || c.d.Err != nil) == strings.Contains(got, "not compared") {
			t.Errorf("%s: %q", c.what, got)
		}
	}
}
