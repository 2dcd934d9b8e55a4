package divergence

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"duet/blockrepl"
)

// The map file; its format is in the package comment.
const (
	mapMagic    = "duetasd1"
	mapHeader   = 32
	frameHeader = 16
	runSize     = 12
	holeBit     = 1 << 63
	mapStep     = 256 << 10 // the map grows by this, zeroed
)

// run is a range of regions that were saved together, by number.
type run struct {
	first, count int64
	hole         bool // they were zeroes: nothing of them is in data
}

func castagnoli(seed uint32, b []byte) uint32 {
	return crc32.Update(seed, crc32.MakeTable(crc32.Castagnoli), b)
}

// encodeMapHeader returns the header of the map that belongs to about. A map is compared with it byte by byte: one of
// another version or size, or another RegionSize, does not fit.
func encodeMapHeader(about About) []byte {
	b := make([]byte, 0, mapHeader)
	b = append(b, mapMagic...)
	b = binary.LittleEndian.AppendUint32(b, blockrepl.RegionSize)
	b = binary.LittleEndian.AppendUint32(b, 0)
	b = binary.LittleEndian.AppendUint64(b, uint64(about.Size))
	b = binary.LittleEndian.AppendUint32(b, castagnoli(castagnoli(0, b), []byte(about.ID)))
	return append(b, 0, 0, 0, 0)
}

// appendFrame adds the frame of runs to b. seed is mapLog.seed, so that a frame of another version's map, which a file
// system may show in a block that it gives out again, is not whole here.
func appendFrame(b []byte, seed uint32, seq uint64, runs []run) []byte {
	start := len(b)
	b = append(b, 0, 0, 0, 0)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(runs)))
	b = binary.LittleEndian.AppendUint64(b, seq)
	for _, r := range runs {
		first := uint64(r.first)
		if r.hole {
			first |= holeBit
		}
		b = binary.LittleEndian.AppendUint64(b, first)
		b = binary.LittleEndian.AppendUint32(b, uint32(r.count))
	}
	binary.LittleEndian.PutUint32(b[start:], castagnoli(seed, b[start+4:]))
	return b
}

// mapLog is what replay found.
type mapLog struct {
	seed uint32
	seq  uint64 // of the last whole frame
	last int64  // where that begins; 0: none
	tail int64  // where the next one goes
}

// replay reads a whole map and gives the runs of its whole frames to mark, in order. Mark is called before the end
// is known: after an error what was marked means nothing.
func replay(b []byte, about About, mark func(run)) (mapLog, error) {
	damaged := func(format string, args ...any) error {
		return fmt.Errorf("read %s: %w: %s", mapName, ErrDamaged, fmt.Sprintf(format, args...))
	}
	header := encodeMapHeader(about)
	if len(b) < mapHeader || string(b[:mapHeader]) != string(header) {
		return mapLog{}, damaged("header does not fit %s", aboutName)
	}
	l := mapLog{seed: binary.LittleEndian.Uint32(header[24:]), tail: mapHeader}
	for {
		body, whole := wholeFrame(b[l.tail:], l.seed, l.seq+1)
		if !whole {
			break
		}
		for ; len(body) > 0; body = body[runSize:] {
			r := decodeRun(body)
			if r.count == 0 || r.first >= regionsOf(about.Size) || r.count > regionsOf(about.Size)-r.first {
				return mapLog{}, damaged("frame %d marks regions %d+%d of %d", l.seq+1, r.first, r.count, regionsOf(about.Size))
			}
			mark(r)
		}
		l.seq++
		l.last = l.tail
		l.tail += frameHeader + int64(binary.LittleEndian.Uint32(b[l.tail+4:]))*runSize
	}
	if seq, at := frameBehind(b, l); at > 0 {
		return mapLog{}, damaged("frame %d at %d is lost, but frame %d at %d is there", l.seq+1, l.tail, seq, at)
	}
	return l, nil
}

func decodeRun(b []byte) run {
	first := binary.LittleEndian.Uint64(b)
	return run{
		first: int64(first &^ holeBit), count: int64(binary.LittleEndian.Uint32(b[8:])), hole: first&holeBit != 0,
	}
}

// wholeFrame returns the runs of the frame at the start of b, if it is whole and seq is its number. The number is
// in the checksum too. An empty frame is never written, so zeroes are none.
func wholeFrame(b []byte, seed uint32, seq uint64) (runs []byte, ok bool) {
	if len(b) < frameHeader || binary.LittleEndian.Uint64(b[8:]) != seq {
		return nil, false
	}
	count := int64(binary.LittleEndian.Uint32(b[4:]))
	if count == 0 || count > int64(len(b)-frameHeader)/runSize {
		return nil, false
	}
	end := frameHeader + count*runSize
	if castagnoli(seed, b[4:end]) != binary.LittleEndian.Uint32(b) {
		return nil, false
	}
	return b[frameHeader:end], true
}

// frameBehind finds a whole frame with a later number behind the end of the log. At
// is 0 if there is none, as it must be: a frame is written when the one before is durable.
func frameBehind(b []byte, l mapLog) (seq uint64, at int64) {
	for at = l.tail; at+frameHeader < int64(len(b)); at += 4 {
		seq = binary.LittleEndian.Uint64(b[at+8:])
		if seq <= l.seq || seq-l.seq > 1<<32 {
			continue // cheap: nearly all of this is zeroes
		}
		if _, whole := wholeFrame(b[at:], l.seed, seq); whole {
			return seq, at
		}
	}
	return 0, 0
}
