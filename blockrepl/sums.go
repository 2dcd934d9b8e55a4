package blockrepl

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
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

// regions calls f for each region of mask, with its bit, until f fails.
func regions(size int64, id uint32, mask uint64, f func(bit uint64, off, n int64) error) error {
	for ; mask != 0; mask &= mask - 1 {
		off := int64(id)*ExtentSize + int64(bits.TrailingZeros64(mask))*RegionSize
		if err := f(mask&-mask, off, min(RegionSize, size-off)); err != nil {
			return err
		}
	}
	return nil
}

// appendSums appends the hash of each region of mask in extent id that can be read, and
// returns the mask of those that cannot, with the cause of the last. Regions are read into
// buf, which holds a run.
func appendSums(d *observed, id uint32, mask uint64, buf, out []byte) (sums []byte, bad uint64, cause error) {
	_ = runs(d.dev.Size(), id, mask, func(off, n int64) error { // it fails where the function does
		if d.hole(off, n) {
			regions := (n + RegionSize - 1) / RegionSize
			out = append(out, make([]byte, regions*sumSize)...)
			return nil
		}
		unread, err := d.readRun(buf[:n], off)
		if err != nil {
			cause = fmt.Errorf("read %d bytes at %d: %w", n, off, err)
		}
		for at := int64(0); at < n; at += RegionSize {
			region := regionMask(int64(id), off+at, off+min(at+RegionSize, n))
			if unread&region == 0 {
				out = appendSum(out, buf[at:min(at+RegionSize, n)])
			}
		}
		bad |= unread
		return nil
	})
	return out, bad, cause
}

// readRun reads a run of regions of one extent; if that fails, one by one. It returns the
// mask of those that cannot be read, and why.
func (o *observed) readRun(p []byte, off int64) (bad uint64, cause error) {
	if o.readAt(p, off) == nil {
		return 0, nil
	}
	for at := 0; at < len(p); at += RegionSize {
		end := min(at+RegionSize, len(p))
		if err := o.readAt(p[at:end], off+int64(at)); err != nil {
			bad |= regionMask(off/ExtentSize, off+int64(at), off+int64(end))
			cause = err
		}
	}
	return bad, cause
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
// returns the mask of regions that differ. One that cannot be read differs: the answer
// brings what to write over it. Unread says why, if there was one.
func compareSums(d *observed, off int64, payload, buf, sums []byte) (differs uint64, again []byte, unread, err error) {
	size := d.dev.Size()
	if len(payload) < 8 || off < 0 || off%ExtentSize != 0 || off >= size {
		return 0, sums, nil, errors.New("malformed compare")
	}
	id := uint32(off / ExtentSize)
	mask := binary.LittleEndian.Uint64(payload) & wholeExtent(id, size)
	theirs := payload[8:]
	if len(theirs) != ones(mask)*sumSize {
		return 0, sums, nil, errors.New("malformed compare: number of hashes")
	}
	sums, differs, unread = appendSums(d, id, mask, buf, sums[:0])
	for at, ours := 0, sums; mask != 0; mask &= mask - 1 {
		if bit := mask & -mask; differs&bit == 0 {
			if !bytes.Equal(ours[:sumSize], theirs[at:at+sumSize]) {
				differs |= bit
			}
			ours = ours[sumSize:]
		}
		at += sumSize
	}
	return differs, sums, unread, nil
}
