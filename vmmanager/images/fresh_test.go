package images

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"duet/console/api"
)

// TestHostFresh: a module that comes back to a node gets no file that is there: it may be the only copy of what the
// node wrote before it was removed. A resync would write over it. A device is used if it begins with nothing.
func TestHostFresh(t *testing.T) {
	p := newPlace(t)
	again := func(id, path string) Hosting {
		h := ask(id, path)
		h.Fresh = true
		return h
	}
	old := filepath.Join(p.pool, "web01.raw")
	wrote := bytes.Repeat([]byte("w"), 1<<20)
	must(t, os.WriteFile(old, wrote, 0o600))
	made, err := p.Host(t.Context(), again("1", old))
	must(t, err)
	p.is("beside the file that was there", "vda.raw")
	if made[0].Path == old || made[0].Was != "" {
		t.Errorf("made %+v", made)
	}
	must(t, p.DropHosted("1"))
	if b, err := os.ReadFile(old); err != nil || !bytes.Equal(b, wrote) {
		t.Errorf("what was there has %d bytes now: %v", len(b), err)
	}
	free := filepath.Join(p.pool, "new.raw")
	if made, err = p.Host(t.Context(), again("2", free)); err != nil || made[0].Path != free {
		t.Errorf("a name that nothing has: %+v, %v", made, err)
	}

	for path, empty := range map[string]bool{"/dev/null": true, "/dev/zero": true, "/dev/urandom": false} {
		places, err := unused(again("3", path).Places)
		if empty && (err != nil || places[0].Path != path) ||
			!empty && (!errors.Is(err, api.ErrConflict) || !strings.Contains(err.Error(), path+" is not empty")) {
			t.Errorf("%s: %+v, %v", path, places, err)
		}
	}
}
