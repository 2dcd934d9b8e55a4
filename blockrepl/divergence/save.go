package divergence

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"duet/blockrepl"
)

const (
	// stepRegions bounds what is claimed, saved and synced in one piece: 64 MiB. A discard of a whole disk goes through
	// here in such steps, and others that want one of its regions wait for one step at most.
	stepRegions = 1024
	// chunk is how much is read and written at once: 1 MiB.
	chunk = 16 * blockrepl.RegionSize
)

// claim is the right of one goroutine to save some regions.
type claim struct {
	done chan struct{} // closed when they are saved, or when that failed
}

// batch is what one commit makes durable: the data of several savers, then one frame. Those who wait for it hold on
// to it after it is done, to learn err.
type batch struct {
	runs []run
	data bool // not only holes
	done bool
	err  error
}

// save makes regions [first, end) of base saved and durable, before it returns nil.
// Regions that another goroutine is saving are waited for. A dropped version needs nothing.
func (v *Version) save(base blockrepl.Device, first, end int64) error {
	err := v.begin()
	if errors.Is(err, ErrDropped) || errors.Is(err, ErrGivenUp) {
		return nil
	}
	if err != nil {
		return err
	}
	defer v.use.RUnlock()
	for first < end {
		mine, mark, other := v.claim(first, min(end, first+stepRegions))
		switch {
		case len(mine) > 0:
			err := v.saveRuns(base, mine)
			v.release(mine, mark)
			if err != nil {
				return err
			}
		case other != nil:
			<-other.done // holds its claim only while it saves; if it fails it is our turn
		default:
			first += stepRegions
		}
	}
	return nil
}

// claim takes what nobody has saved or is saving, and names somebody who is. Who has claims waits for no other
// claim before it has released its own, so nobody waits in a circle.
func (v *Version) claim(first, end int64) (mine []run, mark, other *claim) {
	mark = &claim{done: make(chan struct{})}
	v.claiming.Lock()
	defer v.claiming.Unlock()
	for i := first; i < end; i++ {
		if v.saved.has(i) {
			continue
		}
		if busy := v.claims[i]; busy != nil {
			other = busy
			continue
		}
		v.claims[i] = mark
		if n := len(mine); n > 0 && mine[n-1].first+mine[n-1].count == i {
			mine[n-1].count++
		} else {
			mine = append(mine, run{first: i, count: 1})
		}
	}
	return mine, mark, other
}

// release ends a claim; what it saved is marked by now.
func (v *Version) release(mine []run, mark *claim) {
	v.claiming.Lock()
	for _, r := range mine {
		for i := r.first; i < r.first+r.count; i++ {
			delete(v.claims, i)
		}
	}
	v.claiming.Unlock()
	close(mark.done)
}

// saveRuns copies regions that only this goroutine saves, and that nobody changes meanwhile: who wants to change them
// waits here or for the claim. If it fails nothing is marked, and whoever is next begins anew.
func (v *Version) saveRuns(base blockrepl.Device, mine []run) error {
	buf := v.buffer()
	defer v.buffers.Put(buf)
	holes := holes{dev: base}
	var runs []run
	wrote := false
	for _, r := range mine {
		for r.count > 0 {
			n := min(r.count, chunk/blockrepl.RegionSize)
			if empty := holes.regions(r.first, r.count); empty > 0 {
				n = empty
				runs = appendRun(runs, run{r.first, n, true})
			} else {
				var err error
				if runs, err = v.copyRun(base, *buf, run{first: r.first, count: n}, runs); err != nil {
					return err
				}
			}
			r.first, r.count = r.first+n, r.count-n
		}
	}
	for _, r := range runs {
		wrote = wrote || !r.hole
	}
	return v.commit(runs, wrote)
}

// copyRun copies at most one chunk, leaves out the regions that are zeroes, and adds what it did to runs. Old
// content that cannot be read does not stop the resync, which will write good data there: it becomes zeroes here,
// and is noted.
func (v *Version) copyRun(base blockrepl.Device, buf []byte, r run, runs []run) ([]run, error) {
	off := r.first * blockrepl.RegionSize
	p := buf[:min(r.count*blockrepl.RegionSize, v.about.Size-off)]
	if n, err := base.ReadAt(p, off); n < len(p) {
		if note := v.salvage(base, p, off); note != nil {
			return nil, fmt.Errorf("read old content at %d: %w; %w", off, readError(err), note)
		}
	}
	err := spans(p, blockrepl.RegionSize, func(from, to int, zero bool) error {
		count := int64(to-from+blockrepl.RegionSize-1) / blockrepl.RegionSize
		runs = appendRun(runs, run{r.first + int64(from)/blockrepl.RegionSize, count, zero})
		if zero {
			return nil
		}
		_, err := v.data.WriteAt(p[from:to], off+int64(from))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("write %s: %w", dataName, err)
	}
	return runs, nil
}

// appendRun adds r, to the last one if it continues it.
func appendRun(runs []run, r run) []run {
	if n := len(runs); n > 0 && runs[n-1].hole == r.hole && runs[n-1].first+runs[n-1].count == r.first {
		runs[n-1].count += r.count
		return runs
	}
	return append(runs, r)
}

// commit returns when runs are durable. Whoever comes while a commit is under way joins
// the next one: the first of them to get the lock does it for all. All of a batch get the same error. Data must have
// been written before it is called.
func (v *Version) commit(runs []run, wrote bool) error {
	v.queue.Lock()
	b := v.next
	b.runs = append(b.runs, runs...)
	b.data = b.data || wrote
	v.queue.Unlock()

	v.syncing.Lock()
	defer v.syncing.Unlock()
	if !b.done {
		v.queue.Lock()
		v.next = new(batch)
		v.queue.Unlock()
		b.err = v.write(b)
		b.done = true
	}
	return b.err
}

// write makes a batch durable and marks it. After a failed sync nothing is, ever, until
// the version is opened again: the kernel tells of a lost page once, and only one of us. The caller holds syncing.
//
// Data is synced before its frame is written, as a frame that outlives its data would give out whatever the disk has
// there. A frame that could not be written leaves tail where it is: the next one takes its place and its number.
func (v *Version) write(b *batch) error {
	if v.broken != nil {
		return v.broken
	}
	if b.data {
		if err := v.data.Sync(); err != nil {
			v.broken = fmt.Errorf("sync %s: %w", dataName, err)
			return v.broken
		}
	}
	frame := appendFrame(nil, v.log.seed, v.log.seq+1, b.runs)
	end := v.log.tail + int64(len(frame))
	if end > v.mapSize {
		if _, err := v.mapf.WriteAt(make([]byte, end+mapStep-v.mapSize), v.mapSize); err != nil {
			return fmt.Errorf("extend %s: %w", mapName, err)
		}
		v.mapSize = end + mapStep
	}
	if _, err := v.mapf.WriteAt(frame, v.log.tail); err != nil {
		return fmt.Errorf("write %s: %w", mapName, err)
	}
	if err := v.mapf.Sync(); err != nil {
		v.broken = fmt.Errorf("sync %s: %w", mapName, err)
		return v.broken
	}
	v.log.seq++
	v.log.last, v.log.tail = v.log.tail, end
	for _, r := range b.runs {
		v.mark(r)
	}
	return nil
}

func (v *Version) buffer() *[]byte {
	if buf, ok := v.buffers.Get().(*[]byte); ok {
		return buf
	}
	buf := make([]byte, chunk)
	return &buf
}

// readError is why a device read less than it should.
func readError(err error) error {
	if err == nil {
		return io.ErrUnexpectedEOF
	}
	return err
}

// holes asks a device for its holes and remembers the answer for the way forward.
// A device that cannot tell, or fails to, has none. The answer stays right as long as no region asked about changes.
type holes struct {
	dev        blockrepl.Device
	asked      bool
	start, end int64 // of the next data at or after where it was asked
}

// at returns how many bytes from off on are a hole, 0 if there is data.
func (h *holes) at(off int64) int64 {
	m, ok := h.dev.(blockrepl.Mapper)
	if !ok {
		return 0
	}
	if !h.asked || off >= h.end {
		var err error
		if h.start, h.end, err = m.Data(off); err != nil {
			h.start, h.end = off, h.dev.Size()
		}
		h.asked = true
	}
	return max(0, h.start-off)
}

// regions returns how many of the count regions from first on lie in a hole.
func (h *holes) regions(first, count int64) int64 {
	off := first * blockrepl.RegionSize
	n := h.at(off)
	if off+n >= h.dev.Size() {
		return count
	}
	return min(count, n/blockrepl.RegionSize)
}

// isZero reports whether p is all zeroes: its first byte is, and each equals the one before.
func isZero(p []byte) bool {
	return len(p) == 0 || p[0] == 0 && bytes.Equal(p[1:], p[:len(p)-1])
}

// spans calls do for each run of grains of p that are all zeroes or all not.
func spans(p []byte, grain int, do func(from, to int, zero bool) error) error {
	for from := 0; from < len(p); {
		zero := isZero(p[from:min(from+grain, len(p))])
		to := from + grain
		for to < len(p) && isZero(p[to:min(to+grain, len(p))]) == zero {
			to += grain
		}
		to = min(to, len(p))
		if err := do(from, to, zero); err != nil {
			return err
		}
		from = to
	}
	return nil
}
