package chaos

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"duet/testbed/check"
)

// The part of a volume that a Writer works on: groups of pages, one request at a time
// and connection in each group. It leaves the first MiB to the guest.
const (
	page       = 4096 // bytes; no request is smaller
	groupPages = 4    // so a request covers one to four pages
	groups     = 6
	pages      = groups*groupPages + 1 // one more for the confirming write of a sweep
	firstByte  = 1 << 20               // of the first page, in the volume
	torn       = ^uint64(0)            // the value of a page whose words differ
)

// pause is the time between the requests of one group: it keeps histories short enough
// to be judged.
const pause = 5 * time.Millisecond

// session is one connection of a Writer: what it did and what it was told. Each group has one goroutine, so
// within a connection requests of one page never overlap; those of two connections may.
type session struct {
	w    *Writer // whose values and clock it uses
	host string
	id   int // the client's number in the history
	conn *conn

	mu      sync.Mutex
	ops     []check.Op    // of the present history, in the order in which they ended
	flushes []check.Flush // that were acknowledged
	proven  int64         // Call of the newest write that was acknowledged, -1: none; reads that ended before it count
	acked   int           // writes of the present history
}

// work runs all groups until the connection ends. It returns when the reader and every group have ended.
func (s *session) work() {
	var all sync.WaitGroup
	all.Go(s.conn.receive)
	for g := range groups {
		all.Go(func() { s.group(g) })
	}
	all.Wait()
}

// group makes random requests on the pages of one group. It ends with the connection only: while the writer is
// paused it looks at each tick whether that is lost.
func (s *session) group(g int) {
	rng := rand.New(rand.NewPCG(uint64(s.id), uint64(g)))
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for range tick.C {
		if !s.w.enter() {
			if s.conn.ended() {
				return
			}
			continue
		}
		err := s.random(rng, g)
		s.w.leave()
		if errors.Is(err, errLost) {
			return
		}
	}
}

// random: of a hundred requests 55 write, 5 write zeroes, 35 read and 5 flush; one write in eight has FUA.
func (s *session) random(rng *rand.Rand, g int) error {
	first := rng.IntN(groupPages)
	n := 1 + rng.IntN(groupPages-first)
	first += g * groupPages
	var flags uint16
	if rng.IntN(8) == 0 {
		flags = flagFUA
	}
	switch x := rng.IntN(100); {
	case x < 55:
		return s.write(first, n, flags, s.w.value())
	case x < 60:
		return s.write(first, n, flags, 0)
	case x < 95:
		return s.read(first, n)
	default:
		return s.flush()
	}
}

func at(p int) int64 { return firstByte + int64(p)*page }

// write fills n pages with one value; 0 means zeroes without data. One request covers n blocks of the history:
// each is judged as a register of its own, as nothing promises that a write of several pages is atomic. A write
// that is refused or lost counts as one that may have happened at any time.
func (s *session) write(first, n int, flags uint16, value uint64) error {
	q := request{cmd: cmdWriteZeros, flags: flags, off: at(first), length: n * page}
	if value != 0 {
		word := binary.LittleEndian.AppendUint64(nil, value)
		q.cmd, q.data = cmdWrite, slices.Repeat(word, n*page/len(word))
	}
	op := check.Op{Client: s.id, Write: true, Value: value, FUA: flags == flagFUA, Call: s.w.now()}
	err := s.conn.do(q)
	op.Return = s.w.now()
	s.refuse("write", err)
	s.mu.Lock()
	defer s.mu.Unlock()
	op.Unknown = err != nil
	for p := first; p < first+n; p++ {
		op.Block = uint64(p)
		s.ops = append(s.ops, op)
	}
	if err == nil {
		s.proven = max(s.proven, op.Call)
		s.acked++
	}
	return err
}

// read: one of which no answer came is not in the history, as it says nothing.
func (s *session) read(first, n int) error {
	op := check.Op{Client: s.id, Call: s.w.now()}
	b := make([]byte, n*page)
	err := s.conn.do(request{cmd: cmdRead, off: at(first), length: len(b), data: b})
	op.Return = s.w.now()
	s.refuse("read", err)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range n {
		op.Block, op.Value = uint64(first+i), valueOf(b[i*page:][:page])
		s.ops = append(s.ops, op)
	}
	return nil
}

// valueOf is the value a page was filled with. A page whose words differ was written half, which is a value that
// nobody wrote.
func valueOf(b []byte) uint64 {
	v := binary.LittleEndian.Uint64(b)
	for ; len(b) > 0; b = b[8:] {
		if binary.LittleEndian.Uint64(b) != v {
			return torn
		}
	}
	return v
}

// flush: what it covers is what had returned on any connection: it is the volume that is flushed.
func (s *session) flush() error {
	f := check.Flush{Call: s.w.now()}
	err := s.conn.do(request{cmd: cmdFlush})
	f.Return = s.w.now()
	s.refuse("flush", err)
	if err == nil {
		s.mu.Lock()
		s.flushes = append(s.flushes, f)
		s.mu.Unlock()
	}
	return err
}

// refuse notes an answer with an error number; a lost connection is none, as QEMU would connect again.
func (s *session) refuse(what string, err error) {
	var code refused
	if errors.As(err, &code) {
		s.w.refuse(s.host, what, code)
	}
}

// history is what the session did. A read counts only if the same connection was told later that a write had
// succeeded: the former holder of a volume may answer reads until it learns that it is not any more
// (cluster/DESIGN.md, "Not covered"). It is a copy; requests may go on meanwhile.
func (s *session) history() ([]check.Op, []check.Flush) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ops := slices.Clone(s.ops)
	for i := range ops {
		if !ops[i].Write && ops[i].Return >= s.proven {
			ops[i].Unknown = true
		}
	}
	return ops, slices.Clone(s.flushes)
}

// sweep reads every page and proves by a write that the volume was the holder's. Without the write at the end
// the reads would not count. It goes to a page of its own, which nobody reads.
func (s *session) sweep() error {
	for p := range pages - 1 {
		if err := s.read(p, 1); err != nil {
			return err
		}
	}
	return s.write(pages-1, 1, flagFUA, s.w.value())
}

// ended reports whether the connection is lost.
func (c *conn) ended() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.waiting == nil
}
