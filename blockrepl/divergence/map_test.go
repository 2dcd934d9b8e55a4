package divergence

import (
	"bytes"
	"errors"
	"slices"
	"testing"
	"time"

	"duet/blockrepl"
)

var testAbout = About{Format: aboutFormat, ID: "250131-142233-k7", Size: 100*blockrepl.RegionSize + blockrepl.Sector}

// testFrames are marked by testMap, one commit each.
var testFrames = [][]run{
	{{first: 0, count: 3}},
	{{first: 7, count: 1}, {first: 8, count: 2, hole: true}, {first: 100, count: 1}},
	{{first: 50, count: 20}},
}

func testMap() (b []byte, ends []int) {
	b = encodeMapHeader(testAbout)
	l, err := replay(b, testAbout, nil)
	if err != nil {
		panic(err)
	}
	for i, f := range testFrames {
		b = appendFrame(b, l.seed, uint64(i+1), f)
		ends = append(ends, len(b))
	}
	return append(b, make([]byte, 200)...), ends
}

func replayed(b []byte) ([]run, mapLog, error) {
	var got []run
	l, err := replay(b, testAbout, func(r run) { got = append(got, r) })
	return got, l, err
}

func TestReplay(t *testing.T) {
	b, ends := testMap()
	got, l, err := replayed(b)
	if err != nil || !slices.Equal(got, slices.Concat(testFrames...)) || l.seq != 3 || l.tail != int64(ends[2]) ||
		l.last != int64(ends[1]) {
		t.Errorf("replay: %v, %+v, %v", got, l, err)
	}
}

// A map cut anywhere has the frames that are whole, and no others.
func TestReplayTruncated(t *testing.T) {
	b, ends := testMap()
	for n := range len(b) {
		got, _, err := replayed(b[:n])
		if n < mapHeader {
			if !errors.Is(err, ErrDamaged) {
				t.Fatalf("%d bytes: %v", n, err)
			}
			continue
		}
		whole := 0
		for whole < len(ends) && n >= ends[whole] {
			whole++
		}
		if err != nil || !slices.Equal(got, slices.Concat(testFrames[:whole]...)) {
			t.Fatalf("%d bytes: %v, %v", n, got, err)
		}
	}
}

// A flipped bit in the last frame makes it a torn one; in any other the version is damaged. None marks a region.
func TestReplayFlipped(t *testing.T) {
	good, ends := testMap()
	for bit := range ends[2] * 8 {
		b := bytes.Clone(good)
		b[bit/8] ^= 1 << (bit % 8)
		got, _, err := replayed(b)
		switch {
		case bit/8 >= ends[1]:
			if err != nil || !slices.Equal(got, slices.Concat(testFrames[:2]...)) {
				t.Fatalf("bit %d of the last frame: %v, %v", bit, got, err)
			}
		case !errors.Is(err, ErrDamaged):
			t.Fatalf("bit %d: %v, %v", bit, got, err)
		}
	}
}

func TestReplayOfAnother(t *testing.T) {
	b, ends := testMap()
	other := testAbout
	other.ID = "250131-142233-k8"
	if _, err := replay(b, other, func(run) {}); !errors.Is(err, ErrDamaged) {
		t.Errorf("map of another version: %v", err)
	}
	// Frames of another map, in reused blocks behind the end, are not believed.
	foreign := append(encodeMapHeader(other), b[mapHeader:ends[2]]...)
	if l, err := replay(foreign, other, func(run) { t.Error("a foreign frame was believed") }); err != nil || l.seq != 0 {
		t.Errorf("replay: %+v, %v", l, err)
	}
	// A whole frame that marks what does not exist.
	l, _ := replay(b[:mapHeader], testAbout, nil)
	for _, r := range []run{{first: 100, count: 2}, {first: 101, count: 1}, {first: 1 << 62, count: 1}, {first: 3}} {
		bad := appendFrame(encodeMapHeader(testAbout), l.seed, 1, []run{r})
		if _, err := replay(bad, testAbout, func(run) { t.Errorf("marked %+v", r) }); !errors.Is(err, ErrDamaged) {
			t.Errorf("%+v: %v", r, err)
		}
	}
}

func FuzzReplay(f *testing.F) {
	good, ends := testMap()
	f.Add(good)
	for _, e := range ends {
		f.Add(good[:e])
		f.Add(good[:e-1])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var frames []run
		l, err := replay(b, testAbout, func(r run) {
			if r.count <= 0 || r.first < 0 || r.first+r.count > regionsOf(testAbout.Size) {
				t.Fatalf("marks %+v", r)
			}
			frames = append(frames, r)
		})
		if err != nil {
			return
		}
		if l.tail > int64(len(b)) || l.last > l.tail || (l.seq == 0) != (len(frames) == 0) {
			t.Fatalf("%+v of %d bytes", l, len(b))
		}
		// What is believed can be continued and is believed again.
		next := appendFrame(bytes.Clone(b[:l.tail]), l.seed, l.seq+1, []run{{first: 1, count: 1}})
		again, err := replay(next, testAbout, func(run) {})
		if err != nil || again.seq != l.seq+1 {
			t.Fatalf("continued: %+v, %v", again, err)
		}
	})
}

func FuzzAbout(f *testing.F) {
	good := testAbout
	good.Begun = time.Unix(1738333353, 0).UTC()
	good.Loser.Lineage = blockrepl.Lineage{Volume: "v"}.With(blockrepl.Generation{Epoch: 3, Holder: "alpha"})
	b, err := encodeAbout(good)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"format":1,"id":"../x","size":512}`))
	f.Add([]byte(`{"format":2,"id":"x","size":512}`))
	f.Add([]byte(`{"format":1,"id":"x","size":-512}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := decodeAbout(b)
		if err != nil {
			if !errors.Is(err, ErrDamaged) {
				t.Fatal(err)
			}
			return
		}
		if !validID(a.ID) || a.Size <= 0 || a.Size%blockrepl.Sector != 0 {
			t.Fatalf("accepted %+v", a)
		}
		again, err := encodeAbout(a)
		if err != nil {
			t.Skip(err) // such as a year JSON cannot say
		}
		if twice, err := decodeAbout(again); err != nil || twice.ID != a.ID || twice.Size != a.Size {
			t.Fatalf("%+v became %+v, %v", a, twice, err)
		}
	})
}

func TestNewID(t *testing.T) {
	at := time.Date(2025, 1, 31, 14, 22, 33, 0, time.UTC)
	a, b := newID(at), newID(at.Add(time.Second))
	if !validID(a) || len(a) != 16 || a[:14] != "250131-142233-" || a >= b {
		t.Errorf("ids %q, %q", a, b)
	}
	for _, bad := range []string{"", "..", "a/b", "A", "-rf", "a b", string(bytes.Repeat([]byte{'a'}, 65))} {
		if validID(bad) {
			t.Errorf("%q is an id", bad)
		}
	}
}
