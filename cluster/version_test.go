package cluster

import (
	"errors"
	"strings"
	"testing"
)

func TestVersions(t *testing.T) {
	for protocol, want := range map[string]Version{"": 1, "duet/2": 2} {
		if v, err := Negotiated(protocol); err != nil || v != want {
			t.Errorf("%q: %d, %v", protocol, v, err)
		}
	}
	for _, none := range []string{"duet/1", "duet/3", "h2", "duet/"} {
		if v, err := Negotiated(none); !errors.Is(err, ErrOlder) {
			t.Errorf("%q: %d, %v", none, v, err)
		}
	}
	if v, err := ParseVersion(Current.String()); v != Current || err != nil {
		t.Errorf("%d, %v", v, err)
	}
	for _, bad := range []string{"0", "x", "-1", "70000"} {
		if v, err := ParseVersion(bad); err == nil {
			t.Errorf("%q is version %d", bad, v)
		}
	}
	older, newer := Unknown("beta", 1, 2, "x/y"), Unknown("beta", 3, 2, "x/y")
	if !errors.Is(older, ErrOlder) || !errors.Is(newer, ErrNewer) {
		t.Errorf("%v; %v", older, newer)
	}
	for _, part := range []string{"beta", "version 1", "version 2", `"x/y"`} {
		if !strings.Contains(older.Error(), part) {
			t.Errorf("%v does not say %s", older, part)
		}
	}
}
