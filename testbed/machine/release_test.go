//go:build linux

package machine

import (
	"slices"
	"testing"
)

func TestRetarget(t *testing.T) {
	const lines = `Debian|main|bookworm-security|http://mirror/debian-security/
Debian|main|bookworm|http://mirror/debian/
Debian|contrib|bookworm|http://mirror/debian/
Debian|main|bookworm-updates|http://mirror/debian/
Debian|main|bookworm-backports|http://mirror/debian/
Debian|main|bookworm-updates|http://mirror/debian/
Other|main|bookworm|http://elsewhere/
`
	want := []source{
		{"http://mirror/debian/", "trixie"}, {"http://mirror/debian-security/", "trixie-security"}, {"http://mirror/debian/", "trixie-updates"},
	}
	if got := retarget(lines, Debian13.Codename()); !slices.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
	if got := retarget("Debian|main|bookworm-security|http://mirror/debian-security/\n", "trixie"); got != nil {
		t.Errorf("without the release itself it is %v", got)
	}
}
