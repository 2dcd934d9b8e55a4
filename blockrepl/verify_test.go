package blockrepl

import "testing"

// tiring is a disk that cannot read the sector at off after so many more reads of it; without good it always can.
type tiring struct {
	*disk
	off  int64
	good chan struct{} // has a token for each read; of the goroutines that read
}

func (d *tiring) ReadAt(p []byte, off int64) (int, error) {
	if d.good != nil && off <= d.off && d.off < off+int64(len(p)) {
		select {
		case <-d.good:
		default:
			return 0, errBadSector
		}
	}
	return d.disk.ReadAt(p, off)
}

// A region that cannot be read here any more when it is to be repaired, and not by the peer either, is not.
func TestVerifyCountsWhatItRepaired(t *testing.T) {
	q := newPair(t, ExtentSize)
	a := &tiring{disk: newDisk(ExtentSize), off: 3 * RegionSize}
	q.a.dev = a
	q.up()
	q.write(0, fill(1, 8*RegionSize))
	q.b.dev.(*disk).spoil(a.off) // so it differs
	rot(q.b.dev, 5*RegionSize)
	good := make(chan struct{}, 2)
	good <- struct{}{} // it is compared
	good <- struct{}{} // and again with guests kept off
	a.good = good
	if err := q.p.Verify(true); err != nil {
		t.Fatal(err)
	}
	if e := wantEvent[VerifyDone](q); e.Err != nil || e.Count != 2 || e.Repaired != 1 || e.Same() {
		t.Errorf("%+v", e)
	}
}
