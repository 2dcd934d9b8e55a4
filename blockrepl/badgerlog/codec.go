package badgerlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"duet/blockrepl"
)

// Keys are built so that no volume's prefix is the prefix of another's, and so
// that a volume's lineage comes first: forgetting in key order then drops what
// vouches for the data before what doubts it. Numbers in keys are big-endian, so that extents come in order.
//
//	'k' key                           a record of Put
//	'd' len16 volume 0                lineage
//	'd' len16 volume 1 extent32       one extent
const (
	kindRecord  = 'k'
	kindVolume  = 'd'
	kindLineage = 0
	kindExtent  = 1
)

const (
	entryHot = 1 << 0 // another flag would be refused by the release before: see decodeEntry
	entryLen = 9      // flags, dirty bits
)

var errEntry = errors.New("malformed dirty log entry")

func volumePrefix(volume string) ([]byte, error) {
	if len(volume) > math.MaxUint16/2 {
		return nil, fmt.Errorf("volume name of %d bytes is too long", len(volume))
	}
	b := make([]byte, 0, 3+len(volume)+5)
	b = append(b, kindVolume)
	b = binary.BigEndian.AppendUint16(b, uint16(len(volume)))
	return append(b, volume...), nil
}

// appendEntry encodes an entry that is hot or dirty. Two of them can be joined by a bitwise or; see union.
func appendEntry(b []byte, e blockrepl.Entry) []byte {
	var flags byte
	if e.Hot {
		flags |= entryHot
	}
	b = append(b, flags)
	return binary.BigEndian.AppendUint64(b, e.Dirty)
}

// decodeEntry reads one extent; suffix is its key behind the volume's prefix.
func decodeEntry(suffix, val []byte) (blockrepl.Entry, error) {
	if len(suffix) != 5 || suffix[0] != kindExtent {
		return blockrepl.Entry{}, fmt.Errorf("%w: key %x", errEntry, suffix)
	}
	if len(val) != entryLen || val[0]&^entryHot != 0 {
		return blockrepl.Entry{}, fmt.Errorf("%w: value %x", errEntry, val)
	}
	e := blockrepl.Entry{
		Extent: binary.BigEndian.Uint32(suffix[1:]),
		Hot:    val[0]&entryHot != 0,
		Dirty:  binary.BigEndian.Uint64(val[1:]),
	}
	if !e.Hot && e.Dirty == 0 {
		return blockrepl.Entry{}, fmt.Errorf("%w: clean extent %d", errEntry, e.Extent)
	}
	return e, nil
}

// encodeCommit turns a Commit into writes; the entries share one buffer.
func encodeCommit(prefix []byte, entries []blockrepl.Entry, l *blockrepl.Lineage) ([]write, error) {
	ws := make([]write, 0, len(entries)+1)
	if l != nil {
		val, err := l.MarshalBinary()
		if err != nil {
			return nil, fmt.Errorf("encode lineage: %w", err)
		}
		if len(val) > maxValue {
			return nil, fmt.Errorf("lineage of %d bytes is too long", len(val))
		}
		ws = append(ws, write{key: append(prefix[:len(prefix):len(prefix)], kindLineage), val: val})
	}
	size := len(prefix) + 5 + entryLen
	buf := make([]byte, 0, size*len(entries))
	for _, e := range entries {
		k := len(buf)
		buf = append(append(buf, prefix...), kindExtent)
		buf = binary.BigEndian.AppendUint32(buf, e.Extent)
		v := len(buf)
		w := write{key: buf[k:v:v]}
		if e.Hot || e.Dirty != 0 {
			buf = appendEntry(buf, e)
			w.val = buf[v:len(buf):len(buf)]
		}
		ws = append(ws, w)
	}
	return ws, nil
}
