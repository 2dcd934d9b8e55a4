package backing

import (
	"slices"
	"sync"
	"time"

	"duet/blockrepl"
)

// Fault is one thing that goes wrong on a Faulty device. With neither Delay, Hold nor Err it only takes the operation
// from the faults behind it.
type Fault struct {
	Ops   []blockrepl.Op  // operations it strikes; empty means all
	Off   int64           // it strikes ranges that overlap [Off, Off+Len); flushes always
	Len   int64           // 0 means to the end of the device
	After int             // operations it lets pass first
	Times int             // operations it strikes; 0 means until removed
	Delay time.Duration   // waited before going on
	Hold  <-chan struct{} // if not nil, waited for before going on
	Err   error           // returned instead of the operation's effect; nil lets it happen
}

// Faulty is a Device that fails as told, for tests. It passes everything else through. A fault strikes before the
// wrapped device is asked: an operation that fails has had no effect, one that is held has none yet.
type Faulty struct {
	dev blockrepl.Device

	mu     sync.Mutex
	faults []*Fault
}

var (
	_ blockrepl.Device     = (*Faulty)(nil)
	_ blockrepl.FastReader = (*Faulty)(nil)
	_ blockrepl.Mapper     = (*Faulty)(nil)
)

// NewFaulty wraps dev, which works until Inject.
func NewFaulty(dev blockrepl.Device) *Faulty { return &Faulty{dev: dev} }

// Inject adds a fault; the first one that matches an operation strikes it. The
// returned function removes it, but frees nobody who is in its Delay or Hold.
func (d *Faulty) Inject(f Fault) (remove func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	mine := &f
	d.faults = append(d.faults, mine)
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.faults = slices.DeleteFunc(d.faults, func(have *Fault) bool { return have == mine })
	}
}

// matches reports whether f is about this operation at all.
func (f *Fault) matches(op blockrepl.Op, off, n int64) bool {
	if len(f.Ops) > 0 && !slices.Contains(f.Ops, op) {
		return false
	}
	return op == blockrepl.OpFlush || (off+n > f.Off && (f.Len == 0 || off < f.Off+f.Len))
}

// pick counts the operation against the faults and returns the one that strikes, if any: a copy, as Times goes down
// while others are in it. Each fault with an After that is passed counts the operation, until one strikes.
func (d *Faulty) pick(op blockrepl.Op, off, n int64) (Fault, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i, f := range d.faults {
		if !f.matches(op, off, n) {
			continue
		}
		if f.After > 0 {
			f.After--
			continue
		}
		struck := *f
		if f.Times == 1 {
			d.faults = slices.Delete(d.faults, i, i+1)
		}
		f.Times = max(f.Times-1, 0)
		return struck, true
	}
	return Fault{}, false
}

// inject waits without mu, so that other operations go on beside one that is held.
func (d *Faulty) inject(op blockrepl.Op, off, n int64) error {
	f, ok := d.pick(op, off, n)
	if !ok {
		return nil
	}
	if f.Delay > 0 {
		time.Sleep(f.Delay)
	}
	if f.Hold != nil {
		<-f.Hold
	}
	return f.Err
}

// ReadAt reads unless a fault strikes.
func (d *Faulty) ReadAt(p []byte, off int64) (int, error) {
	if err := d.inject(blockrepl.OpRead, off, int64(len(p))); err != nil {
		return 0, err
	}
	return d.dev.ReadAt(p, off)
}

// TryReadAt reports false while any fault is set for the range, so that it strikes in ReadAt.
func (d *Faulty) TryReadAt(p []byte, off int64) bool {
	fast, ok := d.dev.(blockrepl.FastReader)
	if !ok {
		return false
	}
	d.mu.Lock()
	waits := slices.ContainsFunc(d.faults, func(f *Fault) bool { return f.matches(blockrepl.OpRead, off, int64(len(p))) })
	d.mu.Unlock()
	return !waits && fast.TryReadAt(p, off)
}

// WriteAt writes unless a fault strikes.
func (d *Faulty) WriteAt(p []byte, off int64) (int, error) {
	if err := d.inject(blockrepl.OpWrite, off, int64(len(p))); err != nil {
		return 0, err
	}
	return d.dev.WriteAt(p, off)
}

// Discard discards unless a fault strikes.
func (d *Faulty) Discard(off, n int64) error {
	if err := d.inject(blockrepl.OpDiscard, off, n); err != nil {
		return err
	}
	return d.dev.Discard(off, n)
}

// Zero zeroes unless a fault strikes.
func (d *Faulty) Zero(off, n int64) error {
	if err := d.inject(blockrepl.OpZero, off, n); err != nil {
		return err
	}
	return d.dev.Zero(off, n)
}

// Flush flushes unless a fault strikes.
func (d *Faulty) Flush() error {
	if err := d.inject(blockrepl.OpFlush, 0, 0); err != nil {
		return err
	}
	return d.dev.Flush()
}

// Size is the size of the wrapped device.
func (d *Faulty) Size() int64 { return d.dev.Size() }

// Data asks the wrapped device; one without holes has everything allocated. No fault strikes it: it reads no data.
func (d *Faulty) Data(off int64) (start, end int64, err error) {
	if m, ok := d.dev.(blockrepl.Mapper); ok {
		return m.Data(off)
	}
	return off, d.dev.Size(), nil
}
