package engine

import (
	"encoding/json"
	"testing"
	"time"
)

// TestVolumeStatusKeys: other versions read the figures of a volume by these names, in one flat object.
func TestVolumeStatusKeys(t *testing.T) {
	s := VolumeStatus{
		Target: "vda", Path: "/vm/web01.raw", Size: 1, State: "syncing", Generation: "g", Problem: "p", Dirty: 2,
		Written: time.Unix(3, 0).UTC(), Resync: Resync{ToCompare: 4, Compared: 5, Moved: 6, Rate: 7.5, ETA: 8},
		Lag: 9, Verifying: true, Verified: 10, Proven: time.Unix(11, 0).UTC(),
		Unreadable: 12, UnreadableSince: time.Unix(13, 0).UTC(), Hung: 14,
	}
	const want = `{"target":"vda","path":"/vm/web01.raw","size":1,"state":"syncing","generation":"g","problem":"p",` +
		`"dirty":2,"written":"1970-01-01T00:00:03Z","to_compare":4,"compared":5,"moved":6,"rate":7.5,"eta":8,` +
		`"lag":9,"verifying":true,"verified":10,"proven":"1970-01-01T00:00:11Z",` +
		`"unreadable":12,"unreadable_since":"1970-01-01T00:00:13Z","hung":14`
	got, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(want); len(got) < n || string(got[:n]) != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
	var back VolumeStatus
	if err := json.Unmarshal(got, &back); err != nil || back != s {
		t.Errorf("read back as %+v, %v", back, err)
	}
}
