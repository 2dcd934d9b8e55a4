package blocktest

import (
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"duet/blockrepl"
)

// patience is how long a suite waits for what must happen. It is only reached by a fault, so it is far longer than
// the slowest disk of a loaded computer needs for a few syncs.
const patience = 20 * time.Second

// DirtyLog runs the suite of blockrepl.DirtyLog. open returns an empty log and a
// function that closes it, or ends it as a crash would, and opens it again. What was reported as done before reopen
// must be in what it returns; open has to close both when the test ends.
func DirtyLog(t *testing.T, open func(t *testing.T) (log blockrepl.DirtyLog, reopen func() blockrepl.DirtyLog)) {
	for _, c := range []struct {
		name string
		test func(t *testing.T, log blockrepl.DirtyLog, reopen func() blockrepl.DirtyLog)
	}{
		{"empty", logEmpty},
		{"entries and lineage survive", logDurable},
		{"clean entries are forgotten", logForgets},
		{"commits take effect in order", logOrder},
		{"a commit waits for none before it", logAtOnce},
		{"many commits at once", logMany},
		{"a large commit is one step", logLarge},
	} {
		t.Run(c.name, func(t *testing.T) {
			log, reopen := open(t)
			c.test(t, log, reopen)
		})
	}
}

// commit stores and waits until the log says that it is durable.
func commit(t *testing.T, log blockrepl.DirtyLog, lineage *blockrepl.Lineage, entries ...blockrepl.Entry) {
	t.Helper()
	done := make(chan error, 1)
	log.Commit(entries, lineage, func(err error) { done <- err })
	select {
	case err := <-done:
		if err != nil {
			t.Fatalf("commit: %v", err)
		}
	case <-time.After(patience):
		t.Fatal("commit never done")
	}
}

// wantLog fails unless the log holds exactly this, in order of extent. Of a lineage it compares what decides who may
// overwrite whom; InStep is left to the tests of the codec.
func wantLog(t *testing.T, log blockrepl.DirtyLog, lineage *blockrepl.Lineage, entries ...blockrepl.Entry) {
	t.Helper()
	got, line, err := log.Load()
	if err != nil {
		t.Fatalf("load: %v", err)
	}
	if !slices.Equal(got, entries) {
		t.Fatalf("entries\n%v, want\n%v", got, entries)
	}
	switch {
	case (line == nil) != (lineage == nil):
		t.Fatalf("lineage %v, want %v", line, lineage)
	case line != nil &&
		(line.Volume != lineage.Volume || line.Partial != lineage.Partial || !slices.Equal(line.Line, lineage.Line)):
		t.Fatalf("lineage %+v, want %+v", *line, *lineage)
	}
}

func logEmpty(t *testing.T, log blockrepl.DirtyLog, reopen func() blockrepl.DirtyLog) {
	wantLog(t, log, nil)
	wantLog(t, reopen(), nil)
}

// logDurable: a commit replaces the whole entry of an extent, leaves the others alone, and without a lineage keeps
// the one that is stored. Extents come back in order of their number, up to the largest there is.
func logDurable(t *testing.T, log blockrepl.DirtyLog, reopen func() blockrepl.DirtyLog) {
	line := &blockrepl.Lineage{Volume: "v", Line: []blockrepl.Generation{{Epoch: 3, Holder: "alpha"}}}
	e := []blockrepl.Entry{{Extent: 2, Hot: true}, {Extent: 5, Dirty: 1 << 63}, {Extent: 1<<32 - 1, Hot: true, Dirty: 7}}
	commit(t, log, nil, e[2], e[0])
	commit(t, log, line, e[1])
	wantLog(t, log, line, e...)
	log = reopen()
	wantLog(t, log, line, e...)

	next := line.With(blockrepl.Generation{Epoch: 4, Holder: "beta"})
	next.Partial = true
	commit(t, log, &next)
	wantLog(t, log, &next, e...)
	log = reopen()
	wantLog(t, log, &next, e...)
	commit(t, log, nil, blockrepl.Entry{Extent: 5, Hot: true}) // replaces, keeps the lineage
	e[1] = blockrepl.Entry{Extent: 5, Hot: true}
	wantLog(t, reopen(), &next, e...)
}

// logForgets: an entry that is neither hot nor dirty is no entry, also where there was none before.
func logForgets(t *testing.T, log blockrepl.DirtyLog, reopen func() blockrepl.DirtyLog) {
	commit(t, log, nil, blockrepl.Entry{Extent: 1, Hot: true}, blockrepl.Entry{Extent: 2, Dirty: 1})
	commit(t, log, nil, blockrepl.Entry{Extent: 1}, blockrepl.Entry{Extent: 9})
	want := blockrepl.Entry{Extent: 2, Dirty: 1}
	wantLog(t, log, nil, want)
	wantLog(t, reopen(), nil, want)
}

// logOrder commits the same extent often without waiting: the last must win, and
// no commit may be visible as done while an earlier one is not.
func logOrder(t *testing.T, log blockrepl.DirtyLog, reopen func() blockrepl.DirtyLog) {
	const n = 300
	var mu sync.Mutex
	var order []int
	var all sync.WaitGroup
	all.Add(n)
	for i := 1; i <= n; i++ {
		e := []blockrepl.Entry{{Extent: 1, Dirty: uint64(i)}, {Extent: 2, Hot: i%2 == 0}}
		log.Commit(e, nil, func(err error) {
			if err != nil {
				t.Errorf("commit %d: %v", i, err)
			}
			mu.Lock()
			order = append(order, i)
			mu.Unlock()
			all.Done()
		})
	}
	wait(t, &all)
	if !slices.IsSorted(order) {
		t.Errorf("commits were reported out of order: %v", order)
	}
	wantLog(t, reopen(), nil, blockrepl.Entry{Extent: 1, Dirty: n}, blockrepl.Entry{Extent: 2, Hot: true})
}

// logAtOnce commits with a lock held that the end of the commit before needs, as a Primary does: a Commit that
// waited, or called done itself, would be a deadlock of the whole volume.
func logAtOnce(t *testing.T, log blockrepl.DirtyLog, reopen func() blockrepl.DirtyLog) {
	var mu sync.Mutex
	var all sync.WaitGroup
	all.Add(20)
	mu.Lock()
	returned := make(chan struct{})
	go func() {
		defer close(returned)
		for i := range uint32(20) {
			log.Commit([]blockrepl.Entry{{Extent: i, Hot: true}}, nil, func(err error) {
				mu.Lock()
				defer mu.Unlock()
				if err != nil {
					t.Errorf("commit: %v", err)
				}
				all.Done()
			})
		}
	}()
	select {
	case <-returned:
	case <-time.After(patience):
		t.Error("a commit waits for the end of one before it")
	}
	mu.Unlock()
	wait(t, &all)
	if got, _, err := reopen().Load(); err != nil || len(got) != 20 {
		t.Errorf("%d entries after reopen: %v", len(got), err)
	}
}

// logMany has many callers at once; each must be told once, after it is durable. A second done of one commit would
// end a later one that is not durable yet.
func logMany(t *testing.T, log blockrepl.DirtyLog, reopen func() blockrepl.DirtyLog) {
	const callers, each = 16, 20
	var all sync.WaitGroup
	for c := range callers {
		all.Go(func() {
			for i := range each {
				extent := uint32(c*each + i)
				done := make(chan error, 2)
				log.Commit([]blockrepl.Entry{{Extent: extent, Hot: true}}, nil, func(err error) { done <- err })
				if err := <-done; err != nil {
					t.Errorf("commit: %v", err)
				}
				if !loaded(t, log, extent) {
					t.Errorf("extent %d is not there after its commit", extent)
				}
				if len(done) != 0 {
					t.Error("done was called twice")
				}
			}
		})
	}
	wait(t, &all)
	got, _, err := reopen().Load()
	if err != nil || len(got) != callers*each {
		t.Errorf("%d entries after reopen, want %d: %v", len(got), callers*each, err)
	}
}

func loaded(t *testing.T, log blockrepl.DirtyLog, extent uint32) bool {
	got, _, err := log.Load()
	if err != nil {
		t.Errorf("load: %v", err)
	}
	return slices.ContainsFunc(got, func(e blockrepl.Entry) bool { return e.Extent == extent && e.Hot })
}

// logLarge is the first attach of a 64 GiB volume: every extent in one commit, which is more than one transaction of
// badger holds.
func logLarge(t *testing.T, log blockrepl.DirtyLog, reopen func() blockrepl.DirtyLog) {
	entries := make([]blockrepl.Entry, 16<<10)
	for i := range entries {
		entries[i] = blockrepl.Entry{Extent: uint32(i), Dirty: ^uint64(0)}
	}
	line := &blockrepl.Lineage{Volume: "v"}
	commit(t, log, line, entries...)
	wantLog(t, reopen(), line, entries...)
}

// wait waits for all with the patience of a suite.
func wait(t *testing.T, all *sync.WaitGroup) {
	t.Helper()
	done := make(chan struct{})
	go func() { all.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatal("not done in time")
	}
}

// ErrTest is the error the suites make things fail with.
var ErrTest = errors.New("injected by the test")
