package blockrepl

import (
	"bytes"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// mapping is a disk that knows which regions were ever written. It can be told to wait before it says so.
type mapping struct {
	*disk
	asked, told chan struct{}
}

func (m mapping) Data(off int64) (start, end int64, err error) {
	if m.asked != nil {
		close(m.asked)
		<-m.told
	}
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
	a, b := mapping{disk: newDisk(8 << 20)}, newGated(8<<20)
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

// A hole is told in pieces: what is under way far behind the first does not fill it, and nobody walks a whole volume.
func TestHolesInPieces(t *testing.T) {
	const size = 3 * maxSpan
	q := newPair(t, size)
	q.a.dev = mapping{disk: newDisk(size)}
	q.primary()
	if err := q.p.GoAlone(1); err != nil {
		t.Fatal(err)
	}
	free := q.a.log.stick()
	w := q.start(&Request{Op: OpDiscard, Off: 2*maxSpan - Sector, Len: Sector})
	for _, c := range [][3]int64{{0, maxSpan, size}, {maxSpan, maxSpan, 2 * maxSpan}, {2 * maxSpan, size, size}} {
		if start, end, err := q.p.Data(c[0]); start != c[1] || end != c[2] || err != nil {
			t.Errorf("from %d on: data from %d to %d, %v", c[0], start, end, err)
		}
	}
	free()
	if err := q.result(w); err != nil {
		t.Fatal(err)
	}
}

// A disk that does not say where its data is has failed, as guests wait behind who asks; whoever closes the volume
// waits for it.
func TestHungMap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newPair(t, 8<<20)
		a := mapping{newDisk(8 << 20), make(chan struct{}), make(chan struct{})}
		q.a.dev, q.local = a, 10*time.Second
		q.primary()
		if err := q.p.GoAlone(1); err != nil {
			t.Fatal(err)
		}
		answered := make(chan error, 1)
		go func() {
			_, _, err := q.p.Data(0)
			answered <- err
		}()
		<-a.asked
		if e := wantEvent[DeviceFailed](q); !errors.Is(e.Err, ErrHung) {
			t.Errorf("%+v", e)
		}
		closed := make(chan struct{})
		go func() { q.p.Close(); close(closed) }()
		synctest.Wait()
		select {
		case <-closed:
			t.Error("closed while somebody is in the device")
		default:
		}
		close(a.told)
		<-closed
		if err := <-answered; err != nil {
			t.Error(err)
		}
	})
}
