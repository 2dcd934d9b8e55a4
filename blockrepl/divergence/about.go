package divergence

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"time"

	"duet/blockrepl"
)

// aboutFormat is the version of the files of a Version. A directory of another format is ErrDamaged to this release.
const aboutFormat = 1

// About says what a Version is. It is given to Begin and does not change.
type About struct {
	Format int `json:"format"` // set by Begin
	// ID names the version to admins: lower-case letters, digits and dashes, in order
	// of time. Empty: Begin makes one.
	ID     string `json:"id"`
	Volume string `json:"volume"` // identity, Lineage.Volume
	Module string `json:"module"`
	Target string `json:"target"` // name of the disk within the module
	Node   string `json:"node"`   // whose copy this is, where it is kept
	Epoch  uint64 `json:"epoch"`  // in which the loser begins to be overwritten
	// Begun is when; zero: Begin takes the time of its call.
	Begun  time.Time `json:"begun"`
	Loser  Side      `json:"loser"`
	Winner Side      `json:"winner"`
	Size   int64     `json:"size"` // of the volume, bytes

	// Unreadable is how many bytes of the image could not be read when they were to be
	// saved: they are zeroes here. As of Open or List.
	Unreadable int64 `json:"-"`
	// GivenUp is why nothing is kept any more; empty: it is. Only List tells of such a version.
	GivenUp string `json:"-"`
}

// Side is one of the two copies that diverged. Values that are not known are zero.
type Side struct {
	Node       string            `json:"node"`
	Lineage    blockrepl.Lineage `json:"lineage"`
	FirstWrite time.Time         `json:"first_write,omitzero"` // first and last write since they parted
	LastWrite  time.Time         `json:"last_write,omitzero"`
}

// regionsOf is the number of regions of a volume; the last one may be short.
func regionsOf(size int64) int64 { return (size + blockrepl.RegionSize - 1) / blockrepl.RegionSize }

// newID is sortable by second, in UTC, and typed by people: 250131-142233-k7.
func newID(now time.Time) string {
	const letters = "abcdefghjkmnpqrstvwxyz0123456789" // 32, without what is easily confused
	var b [2]byte
	_, _ = rand.Read(b[:]) // never fails
	return now.UTC().Format("060102-150405-") + string(letters[b[0]%32]) + string(letters[b[1]%32])
}

// validID bounds what becomes the name of a directory and part of a URL.
func validID(id string) bool {
	for _, c := range []byte(id) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return id != "" && len(id) <= 64 && id[0] != '-'
}

func (a About) check() error {
	switch {
	case a.Format != aboutFormat:
		return fmt.Errorf("format %d is not %d", a.Format, aboutFormat)
	case !validID(a.ID):
		return fmt.Errorf("%q is not an id", a.ID)
	case a.Size <= 0 || a.Size%blockrepl.Sector != 0:
		return fmt.Errorf("size of %d bytes", a.Size)
	}
	return nil
}

func encodeAbout(a About) ([]byte, error) {
	if err := a.check(); err != nil {
		return nil, fmt.Errorf("describe version: %w", err)
	}
	b, err := json.MarshalIndent(a, "", "  ")
	return append(b, '\n'), err
}

func decodeAbout(b []byte) (About, error) {
	var a About
	err := json.Unmarshal(b, &a)
	if err == nil {
		err = a.check()
	}
	if err != nil {
		return About{}, fmt.Errorf("read %s: %w: %w", aboutName, ErrDamaged, err)
	}
	return a, nil
}
