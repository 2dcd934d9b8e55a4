package blockrepl

import (
	"bytes"
	"testing"
)

// mapping is a disk that knows which regions were ever written.
type mapping struct{ *disk }

func (m mapping) Data(off int64) (start, end int64, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	data := func(r int64) bool {
		return len(bytes.Trim(m.data[r*RegionSize:][:RegionSize], "\x00")) > 0
	}
	r := off / RegionSize
	for r*RegionSize < int64(len(m.data)) && !data(r) {
		r++
	}
	end = r
	for end*RegionSize < int64(len(m.data)) && data(end) {
		end++
	}
	return max(off, r*RegionSize), end * RegionSize, nil
}

// A volume tells its holes, but none that a write or a resync may yet change.
func TestHoles(t *testing.T) {
	q := newPair(t, 8<<20)
	a, b := mapping{newDisk(8 << 20)}, newGated(8<<20)
	q.a.dev, q.b.dev = a, b
	q.primary()
	if start, _, err := q.p.Data(0); start != 0 || err != nil {
		t.Errorf("a volume nobody may read yet has a hole: %d, %v", start, err)
	}
	q.p.Close()
	q.up()
	q.write(RegionSize, fill(1, RegionSize))
	if start, end, err := q.p.Data(0); start != RegionSize || end != 2*RegionSize || err != nil {
		t.Errorf("data from %d to %d, %v", start, end, err)
	}
	free := b.stick(OpWrite)
	w := q.start(&Request{Op: OpDiscard, Off: RegionSize, Len: RegionSize})
	<-b.entered
	if start, _, err := q.p.Data(RegionSize); start != RegionSize || err != nil {
		t.Errorf("what is not acknowledged is a hole: %d, %v", start, err)
	}
	free()
	if err := q.result(w); err != nil {
		t.Fatal(err)
	}
	if start, _, err := q.p.Data(0); start != 8<<20 || err != nil {
		t.Errorf("data at %d, %v", start, err)
	}
}
