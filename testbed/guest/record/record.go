// Package record defines the numbered blocks the test VM appends to its disk, so that the guest and a checker outside
// it agree on what a complete history looks like.
//
// A disk of S slots holds record n (n ≥ 1) in slot (n-1) mod S. Each record carries the checksum of the record before
// it, so two writers that append to the same disk break the chain and cannot go unseen.
package record

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// Size is the length of one record and the alignment of every write, in bytes.
const Size = 4096

const (
	offMagic = 0
	offNum   = 8
	offBoot  = 16
	offPrev  = 32
	offBody  = 40
	offSum   = Size - 4
	magic    = "DUETREC1"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var (
	// ErrEmpty is returned when a block holds no record at all.
	ErrEmpty = errors.New("no record in this block")
	// ErrTorn is returned when a block begins like a record but its checksum does not match its bytes.
	ErrTorn = errors.New("record is torn")
)

// BootID names one boot of one guest. It is random, so equal ids mean the same boot.
type BootID [16]byte

// String returns the id in hexadecimal.
func (b BootID) String() string { return fmt.Sprintf("%x", b[:]) }

// Record is the decoded header of one block.
type Record struct {
	Number uint64 // 1 is the first record ever written to the disk
	Boot   BootID // the boot that wrote it
	Prev   uint32 // checksum of record Number-1, 0 if Number is 1
	Sum    uint32 // checksum of this block, filled in by Encode and Decode
}

// Encode fills block, which must be Size bytes long, and returns its checksum. The body depends on number and boot, so
// every byte of a torn block is covered and no two records look alike to a deduplicating or zero-aware copier.
func Encode(block []byte, r Record) uint32 {
	_ = block[Size-1]
	copy(block[offMagic:], magic)
	binary.LittleEndian.PutUint64(block[offNum:], r.Number)
	copy(block[offBoot:], r.Boot[:])
	binary.LittleEndian.PutUint32(block[offPrev:], r.Prev)
	binary.LittleEndian.PutUint32(block[offPrev+4:], 0)
	x := r.Number*0x9e3779b97f4a7c15 ^ binary.LittleEndian.Uint64(r.Boot[:]) | 1
	for i := offBody; i+8 <= offSum; i += 8 {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		binary.LittleEndian.PutUint64(block[i:], x)
	}
	// The body is a multiple of 8 long but for the 4 bytes before the checksum.
	binary.LittleEndian.PutUint32(block[offSum-4:], uint32(x>>32))
	sum := crc32.Checksum(block[:offSum], castagnoli)
	binary.LittleEndian.PutUint32(block[offSum:], sum)
	return sum
}

// Decode reads the record in block. The error is ErrEmpty, ErrTorn or nil.
func Decode(block []byte) (Record, error) {
	if len(block) < Size || string(block[offMagic:offMagic+len(magic)]) != magic {
		return Record{}, ErrEmpty
	}
	sum := crc32.Checksum(block[:offSum], castagnoli)
	if sum != binary.LittleEndian.Uint32(block[offSum:]) {
		return Record{}, ErrTorn
	}
	r := Record{
		Number: binary.LittleEndian.Uint64(block[offNum:]),
		Prev:   binary.LittleEndian.Uint32(block[offPrev:]),
		Sum:    sum,
	}
	copy(r.Boot[:], block[offBoot:])
	return r, nil
}

// Slot returns the slot of record n on a disk of slots slots.
func Slot(n, slots uint64) uint64 { return (n - 1) % slots }

// Image is what a scan of a whole disk found.
type Image struct {
	Slots  uint64   // capacity of the disk in records
	Last   uint64   // highest number found, 0 if there is none
	Holes  []uint64 // numbers that should be on the disk and are not, ascending
	Torn   []uint64 // slots that hold a torn record, ascending
	Breaks []uint64 // numbers whose Prev is not the checksum of their predecessor, ascending
	bySlot []Record // Number 0 where the slot holds no record
}

// Scan reads size bytes of r, all of it, and returns what it holds. Only a read error is an error; a damaged history is
// a result.
func Scan(r io.ReaderAt, size int64) (*Image, error) {
	if size < Size {
		return nil, fmt.Errorf("scan disk: %d bytes hold no record", size)
	}
	im := &Image{Slots: uint64(size / Size)}
	im.bySlot = make([]Record, im.Slots)
	if err := im.read(r); err != nil {
		return nil, err
	}
	im.judge()
	return im, nil
}

func (im *Image) read(r io.ReaderAt) error {
	const chunk = 256
	buf := make([]byte, chunk*Size)
	for at := uint64(0); at < im.Slots; at += chunk {
		n := min(chunk, im.Slots-at)
		// ReadAt may return io.EOF together with all the bytes asked for.
		if got, err := r.ReadAt(buf[:n*Size], int64(at*Size)); uint64(got) < n*Size {
			return fmt.Errorf("scan disk at %d: %w", at*Size, err)
		}
		for i := range n {
			rec, err := Decode(buf[i*Size:])
			switch {
			case errors.Is(err, ErrTorn):
				im.Torn = append(im.Torn, at+i)
			case err == nil && rec.Number > 0 && Slot(rec.Number, im.Slots) == at+i:
				im.bySlot[at+i] = rec
				im.Last = max(im.Last, rec.Number)
			}
		}
	}
	return nil
}

func (im *Image) judge() {
	for n := im.First(); n > 0 && n <= im.Last; n++ {
		rec, ok := im.Get(n)
		if !ok {
			im.Holes = append(im.Holes, n)
			continue
		}
		if prev, ok := im.Get(n - 1); ok && prev.Sum != rec.Prev {
			im.Breaks = append(im.Breaks, n)
		}
	}
}

// First returns the lowest number that the disk should still hold, 0 if it holds none.
func (im *Image) First() uint64 {
	if im.Last > im.Slots {
		return im.Last - im.Slots + 1
	}
	return min(1, im.Last)
}

// Get returns record n, if the disk holds it.
func (im *Image) Get(n uint64) (Record, bool) {
	if n == 0 {
		return Record{}, false
	}
	rec := im.bySlot[Slot(n, im.Slots)]
	return rec, rec.Number == n
}
