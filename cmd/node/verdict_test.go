package node

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
