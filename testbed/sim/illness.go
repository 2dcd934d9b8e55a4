package sim

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"duet/blockrepl"
)

// illness is what a disk does wrong. By operation: reads, writes and flushes, the last of which strike at block
// 0 of their row. disk.mu guards it. Nothing here makes a disk return other data than it holds and no error:
// that is what lost, astray and rot do to what it holds.
type illness struct {
	changed  sync.Cond // broadcast when something was mended, or a process has died
	ailments [3][blocks]ailment
	lost     [blocks]bool // the next write does not happen
	astray   [blocks]bool // the next write hits the next block
	hung     []func()     // of the model: what goes on when it is mended
	met      bool         // an operation of the guest failed or hung
	damaged  [blocks]bool // was left at some time with what nobody wrote there, namely
	bad      [blocks]uint64
}

// ailment is what an operation on a block meets. An operation is slow first; then it hangs or fails by what is
// wrong at that moment, so one that is under way when a disk falls ill meets it, and one that is mended in time
// does not.
type ailment struct {
	slow time.Duration
	hang bool
	err  error
}

var errSector = errors.New("input/output error")

// kindOf is the row of an operation.
func kindOf(op blockrepl.Op) int {
	switch op {
	case blockrepl.OpRead:
		return 0
	case blockrepl.OpFlush:
		return 2
	}
	return 1
}

// put is a write that has come to its end, where it lands. A sector that could not be read can be again once it
// was written, as disks remap it.
func (d *disk) put(block int, value uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	i := &d.ill
	if i.ailments[0][block].err == errSector { // written anew it can be read
		i.ailments[0][block].err = nil
	}
	switch {
	case i.lost[block]:
		i.lost[block] = false
		d.harm(block, d.cached[block])
	case i.astray[block]:
		i.astray[block] = false
		d.harm(block, d.cached[block])
		d.harm((block+1)%blocks, value)
	default:
		d.cached[block] = value
	}
}

// harm leaves a block with what nobody wrote there.
func (d *disk) harm(block int, value uint64) {
	d.harmed.Store(true)
	d.cached[block] = value
	d.ill.damaged[block], d.ill.bad[block] = true, value
}

// access is an operation on a block, the guest's or one of a resync.
type access struct {
	op    blockrepl.Op
	block int
	guest bool
}

// ail is what an operation meets now.
func (d *disk) ail(a access) ailment {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.look(a)
}

// look: a disk that has failed as a whole answers every operation with that error.
func (d *disk) look(at access) ailment {
	a := d.ill.ailments[kindOf(at.op)][at.block]
	if kindOf(at.op) == kindOf(blockrepl.OpWrite) {
		a.slow += d.slow
	}
	a.err = errors.Join(a.err, d.fail)
	d.ill.met = d.ill.met || at.guest && (a.err != nil || a.hang)
	return a
}

// mend ends all that is wrong, but for what was written wrong. Whatever hung goes on, and finds nothing wrong.
// Damaged blocks stay damaged until they are written over.
func (d *disk) mend() {
	d.mu.Lock()
	hung := d.ill.hung
	d.ill.ailments, d.ill.lost, d.ill.astray, d.ill.hung = [3][blocks]ailment{}, [blocks]bool{}, [blocks]bool{}, nil
	d.slow, d.fail = 0, nil
	d.ill.changed.Broadcast()
	d.mu.Unlock()
	for _, fn := range hung {
		fn()
	}
}

// wakeDead lets operations of a process that has died see it. A system call of a process that was killed ends
// with it; what hung in the model does not happen any more.
func (d *disk) wakeDead() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ill.hung = nil
	d.ill.changed.Broadcast()
}

// ails reports whether anything is wrong or was written wrong. A block that was written wrong counts until it is
// written over, as whoever reads it is wronged by this disk.
func (d *disk) ails() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for b := range blocks {
		if d.spoilt(b) {
			return true
		}
	}
	return d.fail != nil || d.slow > 0 || d.ill.ailments != [3][blocks]ailment{}
}

// met: the guest has met a disk that failed or hung.
func (d *disk) met() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.ill.met
}

// isDamaged: what a block holds nobody wrote there.
func (d *disk) isDamaged(block int) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.spoilt(block)
}

// spoilt is isDamaged with mu held. What the block holds is compared, and no mark is taken off when it is written over:
// a power cut may bring back what had been flushed, and a resync what had spread to the other copy.
func (d *disk) spoilt(block int) bool {
	return d.ill.damaged[block] && d.cached[block] == d.ill.bad[block]
}

// strike lets an operation of a live goroutine take its time, and fail. It sleeps without the lock; a hang waits
// on the condition, which gives the lock back. It returns when the process is dead, and the caller must not
// touch the disk then.
func (d *disk) strike(at access, base time.Duration, g *gate) error {
	a := d.ail(at)
	time.Sleep(base + a.slow)
	d.mu.Lock()
	defer d.mu.Unlock()
	for a = d.look(at); a.hang && g.alive(); a = d.look(at) {
		d.ill.changed.Wait()
	}
	return a.err
}

// io is strike for the model: fn goes on with what came of it. It does not happen in a dead process. fn does to
// the disk what the operation does: a write that fails changes nothing.
func (n *Node) io(at access, base time.Duration, life *process, fn func(error)) {
	a := n.disk.ail(at)
	var again func()
	again = func() {
		a := n.disk.ail(at)
		if !a.hang {
			fn(a.err)
			return
		}
		n.disk.mu.Lock()
		defer n.disk.mu.Unlock()
		n.disk.ill.hung = append(n.disk.ill.hung, func() { n.c.w.at(0, life, again) })
	}
	n.c.w.quiet(base+a.slow, life, again)
}

// sicken is a line of a script: what of the disk does what, everywhere or at one block.
//
//	reads|writes|flushes|all fails|hangs|D [BLOCK]
func (d *disk) sicken(a []string) error {
	d.harmed.Store(true)
	rows := map[string][]int{"reads": {0}, "writes": {1}, "flushes": {2}, "all": {0, 1, 2}}[a[0]]
	if rows == nil || len(a) < 2 {
		return fmt.Errorf("no such operations %q", a)
	}
	var ill ailment
	switch a[1] {
	case "fails":
		ill.err = errSector
	case "hangs":
		ill.hang = true
	default:
		var err error
		if ill.slow, err = time.ParseDuration(a[1]); err != nil {
			return err
		}
	}
	from, to := 0, blocks
	if len(a) > 2 && a[2] != "" {
		b, err := blockOf(a[2])
		if err != nil {
			return err
		}
		from, to = b, b+1
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, row := range rows {
		for b := from; b < to; b++ {
			d.ill.ailments[row][b] = ill
		}
	}
	return nil
}

func blockOf(text string) (int, error) {
	b, err := strconv.Atoi(text)
	if err != nil || b < 0 || b >= blocks {
		return 0, fmt.Errorf("no block %q", text)
	}
	return b, nil
}

// silently is a line of a script about a disk that says nothing: lose or stray the next
// write to a block, or rot, which changes what it holds.
func (d *disk) silently(what, which string) error {
	b, err := blockOf(which)
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	switch what {
	case "loses":
		d.ill.lost[b] = true
	case "strays":
		d.ill.astray[b] = true
	case "rots":
		d.durable[b] ^= rot
		d.harm(b, d.cached[b]^rot)
	}
	return nil
}

// rot is the bit that flips; no value has it.
const rot = 1 << 40

// differing are the blocks in which two disks differ.
func differing(a, b *disk) (all []int) {
	one, two := a.now(), b.now()
	for i := range one {
		if one[i] != two[i] {
			all = append(all, i)
		}
	}
	return slices.Clip(all)
}
