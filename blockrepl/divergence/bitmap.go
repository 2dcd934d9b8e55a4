package divergence

import "sync/atomic"

// bitmap has one bit per region: 2 MiB for a volume of 1 TiB. Bits are set and never cleared; reading takes no
// lock, and sees what was written before a bit that it finds set.
type bitmap []atomic.Uint64

func newBitmap(bits int64) bitmap { return make(bitmap, (bits+63)/64) }

func (b bitmap) has(i int64) bool { return b[i/64].Load()&(1<<(i%64)) != 0 }

// mask has the bits of [first, end) that lie in the word of first.
func mask(first, end int64) uint64 {
	m := ^uint64(0) << (first % 64)
	if left := end - first/64*64; left < 64 {
		m &= 1<<left - 1
	}
	return m
}

// hasAll reports whether all of [first, end) are set.
func (b bitmap) hasAll(first, end int64) bool {
	for ; first < end; first = (first/64 + 1) * 64 {
		if m := mask(first, end); b[first/64].Load()&m != m {
			return false
		}
	}
	return true
}

func (b bitmap) set(first, end int64) {
	for ; first < end; first = (first/64 + 1) * 64 {
		b[first/64].Or(mask(first, end))
	}
}

// same returns the end of the run from first, up to end, whose bits equal that of first.
func (b bitmap) same(first, end int64) int64 {
	want := b.has(first)
	for i := first + 1; i < end; i++ {
		if b.has(i) != want {
			return i
		}
	}
	return end
}
