package memlog

import (
	"errors"
	"testing"

	"duet/blockrepl"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Commits take effect in order and as a whole; a failing log changes nothing.
func TestLog(t *testing.T) {
	l := New()
	defer l.Close()
	results := make(chan error, 4)
	done := func(err error) { results <- err }
	l.Commit([]blockrepl.Entry{{Extent: 2, Hot: true}, {Extent: 1, Dirty: 3}}, nil, done)
	l.Commit([]blockrepl.Entry{{Extent: 2}}, &blockrepl.Lineage{Volume: "v"}, done)
	for range 2 {
		if err := <-results; err != nil {
			t.Fatal(err)
		}
	}
	full := errors.New("disk full")
	l.Fail(full)
	l.Commit([]blockrepl.Entry{{Extent: 1}}, nil, done)
	if err := <-results; !errors.Is(err, full) {
		t.Fatal(err)
	}
	entries, lineage, err := l.Load()
	if err != nil || len(entries) != 1 || entries[0] != (blockrepl.Entry{Extent: 1, Dirty: 3}) || lineage.Volume != "v" ||
		l.Commits() != 2 {
		t.Fatal(entries, lineage, err)
	}
	l.Close()
	l.Commit(nil, nil, done)
	if err := <-results; !errors.Is(err, ErrClosed) {
		t.Fatal(err)
	}
}
