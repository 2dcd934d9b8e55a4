package sim

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"duet/appmodules"
	"duet/appmodules/engine"
	"duet/blockrepl"
)

// The real byte path sees a volume of some extents. A block is the first sector of a region; two blocks lie in
// each extent, far apart. Everything else is zeroes. So one hot extent covers two blocks, and hotExtents is
// reached: the bookkeeping of extents and regions has work, which the model does not have.
const (
	perExtent  = 2
	sideBySide = blockrepl.RegionSize * (blockrepl.RegionsPerExtent - 1)
	volumeSize = blocks / perExtent * blockrepl.ExtentSize
	blockSize  = blockrepl.Sector
)

// place is where a block lies, in bytes.
func place(block int) int64 {
	return int64(block/perExtent)*blockrepl.ExtentSize + int64(block%perExtent)*sideBySide
}

// covered calls f for each block that begins in [off, off+n).
func covered(off, n int64, f func(block int)) {
	for b := range blocks {
		if at := place(b); at >= off && at < off+n {
			f(b)
		}
	}
}

// errDead is what a process that was killed would get, if anybody could see it.
var errDead = errors.New("the process is dead")

// image is a disk as an engine.Image of one process. Several goroutines of one process use it at a time. It must
// do nothing for a dead process: each method passes the gate after its own time and before its effect.
type image struct {
	n    *Node
	gate *gate
	// following: it is the copy of a secondary.
	following bool
	wait      func(at access) error // the disk's own time, and its trouble
}

var _ engine.Image = (*image)(nil)

// open is the disk of n for a process. It has chance of its own, taken from the world's here, as goroutines that
// drew from that would change the run.
func (n *Node) open(g *gate, following bool) *image {
	rng := rand.New(rand.NewPCG(n.c.w.rng.Uint64(), 0))
	var mu sync.Mutex // several goroutines use rng
	return &image{n: n, gate: g, following: following, wait: func(at access) error {
		mu.Lock()
		d := time.Duration(rng.Int64N(int64(200 * time.Microsecond)))
		lazy := n.c.broken == sleepyDisk && rng.IntN(50) == 0
		mu.Unlock()
		if lazy {
			d = 1500 * time.Millisecond
		}
		return n.disk.strike(at, d, g)
	}}
}

// Size never changes.
func (i *image) Size() int64 { return volumeSize }

// Close leaves everything as it is.
func (i *image) Close() error { return nil }

// do: a range without a block takes no time and meets only a disk that has failed as a whole.
func (i *image) do(op blockrepl.Op, off, n int64) error {
	var err error
	any := false
	covered(off, n, func(b int) {
		any = true
		err = errors.Join(err, i.wait(access{op, b, n == blockSize}))
	})
	if !any {
		err = i.n.disk.failed()
	}
	if !i.gate.pass() {
		return errDead
	}
	return err
}

// ReadAt reads the blocks in the range. A resync, which reads more than one block's
// worth, is given time, so that something can happen to it.
func (i *image) ReadAt(p []byte, off int64) (int, error) {
	if len(p) > blockSize {
		time.Sleep(resyncTime)
	}
	if err := i.do(blockrepl.OpRead, off, int64(len(p))); err != nil {
		return 0, err
	}
	clear(p)
	held := i.n.disk.now()
	covered(off, int64(len(p)), func(b int) { binary.LittleEndian.PutUint64(p[place(b)-off:], held[b]) })
	return len(p), nil
}

// WriteAt writes the blocks in the range; nothing else is ever written.
func (i *image) WriteAt(p []byte, off int64) (int, error) {
	if err := i.do(blockrepl.OpWrite, off, int64(len(p))); err != nil {
		return 0, err
	}
	covered(off, int64(len(p)), func(b int) { i.write(b, binary.LittleEndian.Uint64(p[place(b)-off:])) })
	return len(p), nil
}

// Discard makes the blocks in the range zeroes.
func (i *image) Discard(off, n int64) error { return i.Zero(off, n) }

// Zero makes the blocks in the range zeroes.
func (i *image) Zero(off, n int64) error {
	if err := i.do(blockrepl.OpWrite, off, n); err != nil {
		return err
	}
	covered(off, n, func(b int) { i.write(b, 0) })
	return nil
}

// Data knows that everything between the blocks is a hole.
func (i *image) Data(off int64) (start, end int64, err error) {
	held := i.n.disk.now()
	for b := range blocks {
		if at := place(b); held[b] != 0 && at+blockSize > off {
			return max(at, off), at + blockSize, nil
		}
	}
	return volumeSize, volumeSize, nil
}

func (i *image) write(block int, value uint64) {
	if !(i.following && i.n.c.broken == lyingSecondary) {
		i.n.disk.put(block, value)
	}
}

// Flush makes durable what was written when it began. A write that ends while it lasts is not covered.
func (i *image) Flush() error {
	seen := i.n.disk.now()
	err := i.n.disk.strike(access{blockrepl.OpFlush, 0, true}, diskTime, i.gate)
	switch {
	case !i.gate.pass():
		return errDead
	case err == nil && !(i.following && i.n.c.broken == lazySecondary):
		i.n.disk.flushed(seen)
	}
	return err
}

// disks are the engine.Disks of one process of a node. The log is read here, before anything else happens, and
// not when it is asked for. Methods of Disks are called by live goroutines, which must not read what belongs to
// the world.
type disks struct {
	n     *Node
	life  *process
	log   *journal
	image *image
}

var _ engine.Disks = (*disks)(nil)

// Open opens the image, unless the disk has failed.
func (d *disks) Open(appmodules.Volume) (engine.Image, error) {
	if err := d.n.disk.failed(); err != nil {
		return nil, err
	}
	return d.image, nil
}

// Log is the dirty log.
func (d *disks) Log(appmodules.Volume) blockrepl.DirtyLog { return d.log }

// Frontend is how the guest reaches the volume.
func (d *disks) Frontend(string, appmodules.Volume) (blockrepl.Frontend, error) {
	return &door{n: d.n, p: d.life, end: make(chan struct{})}, nil
}

// Written is not known: nobody looks at it here.
func (d *disks) Written(appmodules.Volume) time.Time { return time.Time{} }

// SetAside keeps what is here. It is whole at the instant of the call, which takes no time: a version half kept
// is for blockrepl/divergence's own tests.
func (d *disks) SetAside(appmodules.Volume, engine.Image, engine.Divergence) error {
	seen := d.n.disk.now()
	d.n.c.w.live.post(func() {
		d.n.kept = append(d.n.kept, seen)
		d.n.c.note("%s: its version is set aside", d.n.name)
	})
	return nil
}

// journal is the dirty log of a node as one process has it. It follows blockrepl.DirtyLog. done runs on the
// goroutine of the world, which plays that of the log; so it must not wait for anything but locks that are held
// for moments.
type journal struct {
	n       *Node
	life    *process
	entries []blockrepl.Entry
	lineage blockrepl.Lineage
	damaged error
	waiting map[*func(error)]bool // commits under way; of the world's goroutine
}

// journal reads the log.
func (n *Node) journal(life *process) *journal {
	j := &journal{n: n, life: life, lineage: n.log.lineage, damaged: n.log.damaged, waiting: map[*func(error)]bool{}}
	for _, e := range n.log.entries {
		j.entries = append(j.entries, e)
	}
	return j
}

// Load is what the log held when it was opened.
func (j *journal) Load() ([]blockrepl.Entry, *blockrepl.Lineage, error) {
	if j.damaged != nil {
		return nil, nil, j.damaged
	}
	l := j.lineage
	return j.entries, &l, nil
}

// Commit stores entries and lineage, or a part of what was asked for before a crash. Nothing is stored for a
// process that is dead when its turn comes; done is told errDead then, as nobody may be left waiting when its
// volume is closed.
func (j *journal) Commit(entries []blockrepl.Entry, lineage *blockrepl.Lineage, done func(error)) {
	entries = append([]blockrepl.Entry(nil), entries...)
	var next blockrepl.Lineage
	if lineage != nil {
		next = *lineage
	}
	j.n.c.w.live.post(func() {
		if j.life.dead {
			done(errDead)
			return
		}
		j.waiting[&done] = true
		end := func(err error) {
			delete(j.waiting, &done)
			done(err)
		}
		j.n.commit(j.life, func(l *dirtyLog) {
			l.keep(entries)
			if lineage != nil {
				l.lineage = next
			}
		}, func() { end(nil) }, end)
	})
}

// abandon ends the commits of a process that is dead.
func (j *journal) abandon() {
	for done := range j.waiting {
		(*done)(errDead)
	}
	clear(j.waiting)
}

// keep changes entries.
func (l *dirtyLog) keep(entries []blockrepl.Entry) {
	for _, e := range entries {
		if !e.Hot && e.Dirty == 0 {
			delete(l.entries, e.Extent)
		} else {
			l.entries[e.Extent] = e
		}
	}
}

// door is the blockrepl.Frontend through which the guest of a node reaches a volume. It stands in the place of
// the NBD server and QEMU's client: one request at a time, no TCP, no reconnect of its own.
type door struct {
	n    *Node
	p    *process
	q    blockrepl.Queue
	once sync.Once
	end  chan struct{}
}

// Endpoint is not looked at.
func (d *door) Endpoint() string { return "" }

// Serve lets the guest in until Close.
func (d *door) Serve(q blockrepl.Queue) error {
	live := d.n.c.w.live
	live.post(func() {
		d.q = q
		d.n.c.w.quiet(0, d.p, func() { d.n.guest.served(d) })
	})
	<-d.end
	live.post(func() { d.n.guest.closed(d) })
	return nil
}

// Close ends Serve.
func (d *door) Close() error {
	d.once.Do(func() { close(d.end) })
	return nil
}

func (d *door) life() *process { return d.p }

// submit takes a request of the guest, as a connection of NBD would. The buffer belongs to the byte path until
// Complete, as blockrepl.Request asks for; a new one is made for each.
func (d *door) submit(r *request) {
	b := &blockrepl.Request{Op: r.op, By: answer{d, r}}
	if r.op != blockrepl.OpFlush {
		b.Off, b.Len, b.Data = place(r.block), blockSize, make([]byte, blockSize)
	}
	if r.op == blockrepl.OpWrite {
		binary.LittleEndian.PutUint64(b.Data, r.value)
	}
	go func() {
		if d.p.gate.pass() {
			d.q.Submit(b)
			d.q.Kick()
		}
	}()
}

// answer is the blockrepl.Completer of one request.
type answer struct {
	d *door
	r *request
}

// Complete tells the guest, if the daemon lives long enough. Epoch is read when the answer is handed over, so a
// write is judged by the epoch its volume has then.
func (a answer) Complete(b *blockrepl.Request, err error) {
	n, r := a.d.n, a.r
	n.c.w.live.post(func() {
		n.c.w.quiet(0, a.d.p, func() {
			epoch := a.d.q.(interface{ Progress() blockrepl.Progress }).Progress().Epoch
			switch {
			case err != nil:
			case r.op == blockrepl.OpRead:
				r.value, r.epoch = binary.LittleEndian.Uint64(b.Data), epoch
			case r.op == blockrepl.OpWrite:
				n.c.check.acknowledged(n, epoch, r)
			}
			r.done(err)
		})
	})
}

// CompleteBatch does nothing.
func (answer) CompleteBatch() {}
