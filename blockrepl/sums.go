package blockrepl

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
)

// sumSize is the length of a region's hash: SHA-256 cut to 128 bits. A region of
// zeroes has the hash zero, so that holes cost nothing to compare.
const sumSize = 16

// runRegions bounds how many regions are read, locked or sent in one piece: 512 KiB.
const runRegions = 8

// runs calls f for each run of consecutive regions of mask, none longer than
// runRegions and none beyond the end of the device, until f fails.
func runs(size int64, id uint32, mask uint64, f func(off, n int64) error) error {
	for bit := 0; bit < RegionsPerExtent; {
		if mask&(1<<bit) == 0 {
			bit++
			continue
		}
		last := bit
		for last < RegionsPerExtent && last-bit < runRegions && mask&(1<<last) != 0 {
			last++
		}
		off := int64(id)*ExtentSize + int64(bit)*RegionSize
		if n := min(int64(last-bit)*RegionSize, size-off); n > 0 {
			if err := f(off, n); err != nil {
				return err
			}
		}
		bit = last
	}
	return nil
}

// appendSums appends the hash of each region of mask in extent id. Regions are read
// into buf, which holds a run.
func appendSums(d Device, id uint32, mask uint64, buf, out []byte) ([]byte, error) {
	m, _ := d.(Mapper)
	err := runs(d.Size(), id, mask, func(off, n int64) error {
		regions := (n + RegionSize - 1) / RegionSize
		if m != nil {
			if start, _, err := m.Data(off); err == nil && start >= off+n {
				out = append(out, make([]byte, regions*sumSize)...)
				return nil
			}
		}
		if _, err := d.ReadAt(buf[:n], off); err != nil {
			return fmt.Errorf("read %d bytes at %d: %w", n, off, err)
		}
		for at := int64(0); at < n; at += RegionSize {
			out = appendSum(out, buf[at:min(at+RegionSize, n)])
		}
		return nil
	})
	return out, err
}

func appendSum(out, region []byte) []byte {
	if zero(region) {
		return append(out, make([]byte, sumSize)...)
	}
	sum := sha256.Sum256(region)
	return append(out, sum[:sumSize]...)
}

// zero reports whether b has only zero bytes; comparing it with itself, shifted by
// one, runs at the speed of memory.
func zero(b []byte) bool {
	return len(b) == 0 || b[0] == 0 && bytes.Equal(b[1:], b[:len(b)-1])
}

// compareSums checks a Compare payload (mask, then hashes) against the device and
// returns the mask of regions that differ.
func compareSums(d Device, off int64, payload, buf, sums []byte) (uint64, []byte, error) {
	if len(payload) < 8 || off < 0 || off%ExtentSize != 0 || off >= d.Size() {
		return 0, sums, errors.New("malformed compare")
	}
	mask := binary.LittleEndian.Uint64(payload)
	theirs := payload[8:]
	sums, err := appendSums(d, uint32(off/ExtentSize), mask, buf, sums[:0])
	if err != nil {
		return 0, sums, err
	}
	if len(theirs) != len(sums) {
		return 0, sums, errors.New("malformed compare: number of hashes")
	}
	var differs uint64
	for bit, at := 0, 0; at < len(sums); bit++ {
		if mask&(1<<bit) == 0 {
			continue
		}
		if !bytes.Equal(sums[at:at+sumSize], theirs[at:at+sumSize]) {
			differs |= 1 << bit
		}
		at += sumSize
	}
	return differs, sums, nil
}
