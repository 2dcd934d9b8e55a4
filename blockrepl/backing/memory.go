package backing

import (
	"slices"
	"sync"

	"duet/blockrepl"
)

// pageSize is the grain in which memory is taken, and so that of holes: a region.
const pageSize = 64 << 10

// Memory is a disk in memory for tests. It takes memory only for what was
// written, so it may be as large as a real one. Like a real one it has a
// volatile cache: PowerCut takes back writes that no Flush followed. Its methods may be called by several goroutines;
// none waits for anything but the others.
type Memory struct {
	size int64

	mu    sync.RWMutex
	pages map[int64]*[pageSize]byte // by offset/pageSize; a missing one is a hole
	// undo holds the last flushed content of each sector written since, by sector number: a disk loses whole sectors.
	undo map[int64][]byte
}

var (
	_ blockrepl.Device     = (*Memory)(nil)
	_ blockrepl.FastReader = (*Memory)(nil)
	_ blockrepl.Mapper     = (*Memory)(nil)
)

// NewMemory returns a disk of size bytes, all zeroes.
func NewMemory(size int64) *Memory {
	return &Memory{size: size, pages: make(map[int64]*[pageSize]byte), undo: make(map[int64][]byte)}
}

// Size is the length in bytes.
func (m *Memory) Size() int64 { return m.size }

// ReadAt fills p from off.
func (m *Memory) ReadAt(p []byte, off int64) (int, error) {
	if err := checkRange(off, int64(len(p)), m.size); err != nil {
		return 0, err
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	m.read(p, off)
	return len(p), nil
}

// TryReadAt is ReadAt: memory never waits.
func (m *Memory) TryReadAt(p []byte, off int64) bool {
	_, err := m.ReadAt(p, off)
	return err == nil
}

// read and write do the work; mu is held and the range was checked.
func (m *Memory) read(p []byte, off int64) {
	for len(p) > 0 {
		n := min(len(p), pageSize-int(off%pageSize))
		if page := m.pages[off/pageSize]; page != nil {
			copy(p[:n], page[off%pageSize:])
		} else {
			clear(p[:n])
		}
		p, off = p[n:], off+int64(n)
	}
}

// WriteAt writes p at off.
func (m *Memory) WriteAt(p []byte, off int64) (int, error) {
	if err := checkRange(off, int64(len(p)), m.size); err != nil {
		return 0, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.remember(off, int64(len(p)))
	m.write(p, off)
	return len(p), nil
}

func (m *Memory) write(p []byte, off int64) {
	for len(p) > 0 {
		n := min(len(p), pageSize-int(off%pageSize))
		page := m.pages[off/pageSize]
		if page == nil {
			page = new([pageSize]byte)
			m.pages[off/pageSize] = page
		}
		copy(page[off%pageSize:], p[:n])
		p, off = p[n:], off+int64(n)
	}
}

// remember keeps the flushed content of the sectors of a range about to change. What a sector held between two
// flushes is never kept: a disk either has the flushed content or the newest.
func (m *Memory) remember(off, n int64) {
	for s := off / blockrepl.Sector; s*blockrepl.Sector < off+n; s++ {
		if _, ok := m.undo[s]; ok {
			continue
		}
		old := make([]byte, min(blockrepl.Sector, m.size-s*blockrepl.Sector))
		m.read(old, s*blockrepl.Sector)
		m.undo[s] = old
	}
}

// Discard makes the range read as zeroes; whole pages become holes.
func (m *Memory) Discard(off, n int64) error {
	if err := checkRange(off, n, m.size); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.eachPage(off, n, func(page, from, to int64) {
		switch {
		case m.pages[page] == nil: // reads as zeroes already, flushed or not
		case to-from == pageSize:
			m.remember(page*pageSize, min(pageSize, m.size-page*pageSize))
			delete(m.pages, page)
		default:
			m.remember(page*pageSize+from, to-from)
			clear(m.pages[page][from:to])
		}
	})
	return nil
}

// Zero makes the range read as zeroes and allocates it.
func (m *Memory) Zero(off, n int64) error {
	if err := checkRange(off, n, m.size); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.remember(off, n)
	m.eachPage(off, n, func(page, from, to int64) {
		if m.pages[page] == nil {
			m.pages[page] = new([pageSize]byte)
		}
		clear(m.pages[page][from:to])
	})
	return nil
}

// eachPage calls do for the part of each page that lies in the range, in bytes within the page.
func (m *Memory) eachPage(off, n int64, do func(page, from, to int64)) {
	for n > 0 {
		from := off % pageSize
		step := min(n, pageSize-from)
		do(off/pageSize, from, from+step)
		off, n = off+step, n-step
	}
}

// Flush makes every write so far survive PowerCut.
func (m *Memory) Flush() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.undo)
	return nil
}

// PowerCut takes back the unflushed sectors that keep refuses, in order of
// offset, as a disk may have written any of its cache or none; a nil keep takes
// all back. keep is given the sector's offset in bytes and must not call the disk. The order is fixed so that a keep
// that draws lots from a seed gives the same disk again. The disk stays usable.
func (m *Memory) PowerCut(keep func(off int64) bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	sectors := make([]int64, 0, len(m.undo))
	for s := range m.undo {
		sectors = append(sectors, s)
	}
	slices.Sort(sectors)
	for _, s := range sectors {
		if keep == nil || !keep(s*blockrepl.Sector) {
			m.write(m.undo[s], s*blockrepl.Sector)
		}
	}
	clear(m.undo)
}

// Data finds the next range that takes memory.
func (m *Memory) Data(off int64) (start, end int64, err error) {
	if err := checkRange(off, 0, m.size); err != nil {
		return 0, 0, err
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	start = m.size
	for page := range m.pages {
		if (page+1)*pageSize > off {
			start = min(start, max(off, page*pageSize))
		}
	}
	for end = start; end < m.size && m.pages[end/pageSize] != nil; {
		end = min((end/pageSize+1)*pageSize, m.size)
	}
	return start, end, nil
}
