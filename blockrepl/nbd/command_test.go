package nbd

import (
	"encoding/binary"
	"slices"
	"testing"
)

// pieces is a map of data and holes that tells neither in one piece.
type pieces struct {
	piece int64
	data  []bool
	asked int
}

func (m *pieces) Data(off int64) (start, end int64, err error) {
	m.asked++
	i := off / m.piece
	if end = (i + 1) * m.piece; m.data[i] {
		return off, end, nil
	}
	return end, max(end, int64(len(m.data))*m.piece), nil
}

// A client is told each extent whole, though the volume tells it in pieces; and no more is asked than it takes.
func TestMapRange(t *testing.T) {
	const size = 1 << 20
	for _, c := range []struct {
		off, end int64
		limit    int
		want     []uint32 // lengths and states
		asked    int
	}{
		{0, 6 * size, 8, []uint32{3 * size, stateHole | stateZero, 2 * size, 0, size, stateHole | stateZero}, 6},
		{512, 6 * size, 1, []uint32{3*size - 512, stateHole | stateZero}, 4},
		{3 * size, 6 * size, 1, []uint32{2 * size, 0}, 3},
		{size, 2*size + 512, 1, []uint32{size + 512, stateHole | stateZero}, 2},
	} {
		m := &pieces{size, []bool{false, false, false, true, true, false}, 0}
		b, err := mapRange(m, c.off, c.end, c.limit)
		if err != nil {
			t.Fatal(err)
		}
		var got []uint32
		for at := 0; at < len(b); at += 4 {
			got = append(got, binary.BigEndian.Uint32(b[at:]))
		}
		if !slices.Equal(got, c.want) || m.asked != c.asked {
			t.Errorf("[%d,%d), %d at most: %d, asked %d times", c.off, c.end, c.limit, got, m.asked)
		}
	}
}
