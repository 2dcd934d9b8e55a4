package record

import (
	"bytes"
	"errors"
	"slices"
	"testing"
)

// disk builds an image of slots slots holding the records from..to, chained, each written by boot 1.
func disk(slots int, from, to uint64) []byte {
	img := make([]byte, slots*Size)
	var prev uint32
	for n := uint64(1); n <= to; n++ {
		block := make([]byte, Size)
		prev = Encode(block, Record{Number: n, Boot: BootID{1}, Prev: prev})
		if n >= from {
			copy(img[Slot(n, uint64(slots))*Size:], block)
		}
	}
	return img
}

func TestScan(t *testing.T) {
	clear4 := func(img []byte) { clear(img[4*Size : 5*Size]) }
	tests := []struct {
		name                string
		slots               int
		from, to            uint64
		spoil               func([]byte)
		last                uint64
		holes, torn, breaks []uint64
	}{
		{name: "empty disk", slots: 8},
		{name: "from the start", slots: 8, from: 1, to: 6, last: 6},
		{name: "exactly full", slots: 8, from: 1, to: 8, last: 8},
		{name: "wrapped", slots: 8, from: 1, to: 19, last: 19},
		{name: "a lost record", slots: 8, from: 1, to: 7, spoil: clear4, last: 7, holes: []uint64{5}},
		{name: "lost the newest", slots: 8, from: 1, to: 5, spoil: clear4, last: 4},
		{name: "lost after wrapping", slots: 8, from: 1, to: 15, spoil: clear4, last: 15, holes: []uint64{13}},
		{name: "lost beginning", slots: 8, from: 3, to: 5, last: 5, holes: []uint64{1, 2}},
		{name: "torn", slots: 8, from: 1, to: 7, spoil: func(img []byte) { img[2*Size+3000] ^= 1 }, last: 7,
			holes: []uint64{3}, torn: []uint64{2}},
		{name: "another writer", slots: 8, from: 1, to: 7, last: 7, breaks: []uint64{4, 5},
			spoil: func(img []byte) { Encode(img[3*Size:4*Size], Record{Number: 4, Boot: BootID{2}, Prev: 9}) }},
		{name: "old record in a slot that should be newer", slots: 4, from: 1, to: 6, last: 6, holes: []uint64{5},
			spoil: func(img []byte) { copy(img[:Size], disk(4, 1, 1)[:Size]) }},
		{name: "record in a slot that is not its own", slots: 8, from: 1, to: 2, last: 2,
			spoil: func(img []byte) { copy(img[5*Size:6*Size], img[:Size]) }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			img := disk(tt.slots, tt.from, tt.to)
			if tt.spoil != nil {
				tt.spoil(img)
			}
			im, err := Scan(bytes.NewReader(img), int64(len(img)))
			if err != nil {
				t.Fatal(err)
			}
			if im.Last != tt.last || !slices.Equal(im.Holes, tt.holes) || !slices.Equal(im.Torn, tt.torn) ||
				!slices.Equal(im.Breaks, tt.breaks) {
				t.Errorf("last=%d holes=%v torn=%v breaks=%v", im.Last, im.Holes, im.Torn, im.Breaks)
			}
		})
	}
	if _, err := Scan(bytes.NewReader(nil), Size); err == nil {
		t.Error("a disk shorter than its size scanned without error")
	}
	if _, err := Scan(bytes.NewReader(nil), 0); err == nil {
		t.Error("a disk without room scanned without error")
	}
}

// TestEveryByteCounts flips each byte of a record once: none may go unnoticed.
func TestEveryByteCounts(t *testing.T) {
	block := make([]byte, Size)
	Encode(block, Record{Number: 7, Boot: BootID{3}, Prev: 1})
	for i := range block {
		block[i] ^= 0x40
		if _, err := Decode(block); err == nil {
			t.Fatalf("byte %d changed and the record still decodes", i)
		}
		block[i] ^= 0x40
	}
	if _, err := Decode(block[:Size-1]); !errors.Is(err, ErrEmpty) {
		t.Errorf("short block: %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	block := make([]byte, Size)
	Encode(block, Record{Number: 7, Boot: BootID{3}, Prev: 1})
	f.Add(block)
	f.Add([]byte(magic))
	f.Fuzz(func(t *testing.T, b []byte) {
		rec, err := Decode(b)
		if err != nil {
			return
		}
		again := make([]byte, Size)
		sum := Encode(again, rec)
		if back, err := Decode(again); err != nil || back.Number != rec.Number || back.Boot != rec.Boot ||
			back.Prev != rec.Prev || back.Sum != sum {
			t.Errorf("%+v became %+v, %v", rec, back, err)
		}
	})
}
