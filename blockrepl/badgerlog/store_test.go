package badgerlog

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"duet/blockrepl"
)

func TestMain(m *testing.M) {
	if child() {
		return
	}
	goleak.VerifyTestMain(m)
}

// open opens dir for the length of the test; an earlier Close by the test is fine.
func open(t testing.TB, dir string) *Store {
	t.Helper()
	s, err := Open(Config{Dir: dir, MinFree: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func reopen(t *testing.T, s *Store) *Store {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return open(t, s.room.dir)
}

// commit waits for one commit.
func commit(l blockrepl.DirtyLog, lin *blockrepl.Lineage, es ...blockrepl.Entry) error {
	done := make(chan error, 1)
	l.Commit(es, lin, func(err error) { done <- err })
	return <-done
}

func mustLoad(t *testing.T, l blockrepl.DirtyLog) ([]blockrepl.Entry, *blockrepl.Lineage) {
	t.Helper()
	es, lin, err := l.Load()
	if err != nil {
		t.Fatal(err)
	}
	return es, lin
}

func TestCommitSurvivesReopen(t *testing.T) {
	s := open(t, t.TempDir())
	a := s.Log("a")
	lin := &blockrepl.Lineage{Volume: "v", Partial: true, Line: []blockrepl.Generation{{Epoch: 7, Holder: "alpha"}}}
	steps := []struct {
		es  []blockrepl.Entry
		lin *blockrepl.Lineage
	}{
		{[]blockrepl.Entry{{Extent: 900, Dirty: 1}, {Extent: 2, Hot: true}}, lin},
		{[]blockrepl.Entry{{Extent: 3, Hot: true, Dirty: 1 << 63}, {Extent: 900}}, nil},
	}
	for _, st := range steps {
		if err := commit(a, st.lin, st.es...); err != nil {
			t.Fatal(err)
		}
	}
	want := []blockrepl.Entry{{Extent: 2, Hot: true}, {Extent: 3, Hot: true, Dirty: 1 << 63}}
	for range 2 {
		es, got := mustLoad(t, s.Log("a"))
		if !slices.Equal(es, want) {
			t.Errorf("entries %v, want %v", es, want)
		}
		if got == nil || got.String() != lin.String() || !got.Partial {
			t.Errorf("lineage %v, want %v", got, lin)
		}
		s = reopen(t, s)
	}
}

func TestVolumesAreApart(t *testing.T) {
	s := open(t, t.TempDir())
	names := []string{"", "a", "ab", "a\x00", "a\x01\x00\x00\x00\x05"}
	for i, n := range names {
		if err := commit(s.Log(n), &blockrepl.Lineage{Volume: n}, blockrepl.Entry{Extent: uint32(i), Hot: true}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Put(map[string][]byte{"a": []byte("1")}); err != nil {
		t.Fatal(err)
	}
	forgotten := make(chan error, 1)
	s.Forget("a", func(err error) { forgotten <- err })
	if err := <-forgotten; err != nil {
		t.Fatal(err)
	}
	for i, n := range names {
		es, lin := mustLoad(t, s.Log(n))
		if n == "a" {
			if len(es) != 0 || lin != nil {
				t.Errorf("forgotten volume still has %v %v", es, lin)
			}
			continue
		}
		if len(es) != 1 || es[0].Extent != uint32(i) || lin == nil || lin.Volume != n {
			t.Errorf("volume %q: %v %v", n, es, lin)
		}
	}
	if _, ok, err := s.Get("a"); !ok || err != nil {
		t.Errorf("record went with the volume: %v %v", ok, err)
	}
}

// TestOrder checks that done is called in the order of Commit and that the last
// commit wins, for many commits of several volumes at once.
func TestOrder(t *testing.T) {
	s := open(t, t.TempDir())
	const volumes, commits = 4, 500
	var wg sync.WaitGroup
	for v := range volumes {
		wg.Go(func() {
			l := s.Log(fmt.Sprint(v))
			next := 0
			done := make(chan struct{})
			for i := range commits {
				l.Commit([]blockrepl.Entry{{Extent: 1, Dirty: uint64(i + 1)}}, nil, func(err error) {
					if err != nil || i != next {
						t.Errorf("volume %d: done %d came as %d: %v", v, i, next, err)
					}
					if next++; next == commits {
						close(done)
					}
				})
			}
			<-done
		})
	}
	wg.Wait()
	for v := range volumes {
		es, _ := mustLoad(t, s.Log(fmt.Sprint(v)))
		if len(es) != 1 || es[0].Dirty != commits {
			t.Errorf("volume %d ends with %v", v, es)
		}
	}
}

func TestCommitLargerThanATransaction(t *testing.T) {
	s := open(t, t.TempDir())
	l := s.Log("big")
	var want []blockrepl.Entry
	for i := range 15000 {
		want = append(want, blockrepl.Entry{Extent: uint32(i), Hot: i%2 == 0, Dirty: uint64(i)<<1 | 1})
	}
	if err := commit(l, &blockrepl.Lineage{Volume: "x"}, want...); err != nil {
		t.Fatal(err)
	}
	es, lin := mustLoad(t, l)
	if !slices.Equal(es, want) || lin == nil {
		t.Fatalf("%d entries, lineage %v", len(es), lin)
	}
	// Narrow all of it at once, and forget a part.
	for i := range want {
		want[i].Hot = false
		if i >= 12000 {
			want[i].Dirty = 0
		}
	}
	if err := commit(l, nil, want...); err != nil {
		t.Fatal(err)
	}
	if es, _ = mustLoad(t, reopen(t, s).Log("big")); !slices.Equal(es, want[:12000]) {
		t.Fatalf("%d entries after narrowing", len(es))
	}
}

// TestSplitCommitWidensFirst stops a large commit after each of its
// transactions: what is stored must cover the old dirt as long as the lineage is
// old, and the new dirt as soon as the lineage is new.
func TestSplitCommitWidensFirst(t *testing.T) {
	s := open(t, t.TempDir())
	s.max.count = 10
	const extents = 25
	old, fresh := make([]blockrepl.Entry, extents), make([]blockrepl.Entry, extents)
	for i := range extents {
		old[i] = blockrepl.Entry{Extent: uint32(i), Dirty: 1}
		fresh[i] = blockrepl.Entry{Extent: uint32(i), Dirty: 2}
	}
	newLin := &blockrepl.Lineage{Volume: "new"}
	for steps := 0; ; steps++ {
		l := s.Log(fmt.Sprint("v", steps))
		if err := commit(l, &blockrepl.Lineage{Volume: "old"}, old...); err != nil {
			t.Fatal(err)
		}
		left := steps
		s.room.free = func(string) (int64, error) {
			if left--; left < 0 {
				return 0, nil
			}
			return 1 << 40, nil
		}
		err := commit(l, newLin, fresh...)
		s.room.free = freeBytes
		es, lin := mustLoad(t, l)
		need := uint64(1)
		if lin.Volume == "new" {
			need = 2
		}
		if len(es) != extents {
			t.Fatalf("after %d transactions: %d entries", steps, len(es))
		}
		for _, e := range es {
			if e.Dirty&need == 0 {
				t.Fatalf("after %d transactions: lineage %q, extent %v", steps, lin.Volume, e)
			}
		}
		if err == nil {
			if steps < 7 || es[0].Dirty != 2 {
				t.Fatalf("complete after %d transactions: %v", steps, es[0])
			}
			return
		}
		if !errors.Is(err, ErrFull) {
			t.Fatal(err)
		}
	}
}

func TestRecords(t *testing.T) {
	s := open(t, t.TempDir())
	if err := s.Put(map[string][]byte{"m/a": []byte("1"), "m/b": {}, "n": []byte("3")}); err != nil {
		t.Fatal(err)
	}
	if err := s.Put(map[string][]byte{"m/c": []byte("4")}, "m/a", "absent"); err != nil {
		t.Fatal(err)
	}
	s = reopen(t, s)
	got, err := s.List("m/")
	want := map[string][]byte{"m/b": {}, "m/c": []byte("4")}
	if err != nil || !maps.EqualFunc(got, want, slices.Equal) {
		t.Errorf("List: %q %v", got, err)
	}
	if _, ok, err := s.Get("m/a"); ok || err != nil {
		t.Errorf("removed record: %v %v", ok, err)
	}
	if v, ok, err := s.Get("m/b"); !ok || len(v) != 0 || err != nil {
		t.Errorf("empty record: %q %v %v", v, ok, err)
	}
	for name, err := range map[string]error{
		"too long value": s.Put(map[string][]byte{"x": make([]byte, maxValue+1)}),
		"too large step": s.Put(map[string][]byte{"x": make([]byte, maxValue), "y": make([]byte, maxValue),
			"z": make([]byte, maxValue)}),
		"put and delete": s.Put(map[string][]byte{"x": nil}, "x"),
	} {
		if err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
	if err := s.Put(map[string][]byte{"x": make([]byte, maxValue)}); err != nil {
		t.Error(err)
	}
}

func TestAfterClose(t *testing.T) {
	s := open(t, t.TempDir())
	l := s.Log("a")
	// What was queued before Close is committed by it.
	const n = 100
	errs := make(chan error, n)
	for i := range n {
		l.Commit([]blockrepl.Entry{{Extent: uint32(i), Hot: true}}, nil, func(err error) { errs <- err })
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for range n {
		if err := <-errs; err != nil {
			t.Fatal(err)
		}
	}
	_, _, loadErr := l.Load()
	_, _, getErr := s.Get("a")
	for name, err := range map[string]error{"Commit": commit(l, nil), "Load": loadErr, "Put": s.Put(nil), "Get": getErr} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("%s after Close: %v", name, err)
		}
	}
	if es, _ := mustLoad(t, open(t, s.room.dir).Log("a")); len(es) != n {
		t.Errorf("%d entries of %d", len(es), n)
	}
}

// TestFailedSyncIsFinal checks that nothing is acknowledged after a failed commit.
func TestFailedSyncIsFinal(t *testing.T) {
	s := open(t, t.TempDir())
	s.dir.dir += "/gone"
	if err := s.Put(map[string][]byte{"a": nil}); err == nil {
		t.Fatal("commit succeeded without its directory")
	}
	s.dir.dir = s.room.dir
	if err := commit(s.Log("v"), nil, blockrepl.Entry{Hot: true}); err == nil {
		t.Fatal("commit succeeded after a failed one")
	}
}

// TestCompaction overwrites two records until tables are merged: the store must
// not grow with the number of commits.
func TestCompaction(t *testing.T) {
	s := open(t, t.TempDir())
	big := make([]byte, maxValue)
	for round := range 60 {
		big[0] = byte(round)
		if err := s.Put(map[string][]byte{"a": big, "b": big}); err != nil {
			t.Fatal(err)
		}
	}
	s = reopen(t, s)
	// Merging is done beside the commits, each of which asks for it again.
	var size int64
	deadline := time.Now().Add(20 * time.Second)
	for round := 0; round == 0 || size > 3*memTable && time.Now().Before(deadline); round++ {
		if err := s.Put(map[string][]byte{"a": big}); err != nil {
			t.Fatal(err)
		}
		size = 0
		for _, lv := range s.db.Levels() {
			size += lv.Size
		}
	}
	if size == 0 || size > 3*memTable {
		t.Errorf("%d bytes in tables for two records", size)
	}
	if got, ok, err := s.Get("b"); err != nil || !ok || !slices.Equal(got, big) {
		t.Errorf("record after compaction: %v %v", ok, err)
	}
}

func FuzzDecodeEntry(f *testing.F) {
	f.Add([]byte{1, 0, 0, 0, 5}, []byte{1, 0, 0, 0, 0, 0, 0, 0, 9})
	f.Add([]byte{0}, []byte{})
	f.Fuzz(func(t *testing.T, suffix, val []byte) {
		e, err := decodeEntry(suffix, val)
		if err != nil {
			return
		}
		ws, err := encodeCommit(nil, []blockrepl.Entry{e}, nil)
		if err != nil || len(ws) != 1 || !slices.Equal(ws[0].key, suffix) || !slices.Equal(ws[0].val, val) {
			t.Errorf("%x %x decodes to %v and encodes to %x", suffix, val, e, ws)
		}
	})
}

func BenchmarkCommit(b *testing.B) {
	for _, waiting := range []int{1, 32} {
		b.Run(fmt.Sprintf("waiting=%d", waiting), func(b *testing.B) {
			l := open(b, b.TempDir()).Log("v")
			tokens := make(chan error, waiting)
			for range waiting {
				tokens <- nil
			}
			i := 0
			for b.Loop() {
				if err := <-tokens; err != nil {
					b.Fatal(err)
				}
				i++
				l.Commit([]blockrepl.Entry{{Extent: uint32(i % 4096), Hot: true}}, nil, func(err error) { tokens <- err })
			}
			for range waiting {
				<-tokens
			}
		})
	}
}

// TestValues: values of two prefixes do not see each other.
func TestValues(t *testing.T) {
	s := open(t, t.TempDir())
	a, b := Values{Store: s, Prefix: "a/"}, Values{Store: s}
	if err := errors.Join(a.Save("k", 1), a.Save("kk", 2), b.Save("k", 3)); err != nil {
		t.Fatal(err)
	}
	var v int
	if ok, err := a.Load("k", &v); !ok || err != nil || v != 1 {
		t.Errorf("%v, %v, %v", v, ok, err)
	}
	keys, err := a.Keys("k")
	if slices.Sort(keys); err != nil || !slices.Equal(keys, []string{"k", "kk"}) {
		t.Errorf("%v, %v", keys, err)
	}
	if err := errors.Join(a.Delete("k"), a.Delete("none")); err != nil {
		t.Fatal(err)
	}
	if ok, err := a.Load("k", &v); ok || err != nil {
		t.Errorf("after Delete: %v, %v", ok, err)
	}
	if ok, err := b.Load("k", &v); !ok || err != nil || v != 3 {
		t.Errorf("the other prefix: %v, %v, %v", v, ok, err)
	}
	var text string
	if _, err := b.Load("k", &text); err == nil {
		t.Error("a number was read as text")
	}
}
