package blockrepl

import (
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"
)

var (
	simSeed  = flag.Uint64("sim.seed", 0, "run only this schedule of TestCrashes")
	simCount = flag.Uint64("sim.count", 100, "number of schedules of TestCrashes")
)

const (
	simBlock  = 4096
	simBlocks = 96
)

// history is what the model knows of one block: the stamps written to it, in order of
// submission. What is read must be floor or later.
type history struct {
	stamps  []uint64
	acked   int // index of the newest acknowledged or observed stamp
	flushed int // index covered by an acknowledged flush
}

// simWrite is a write in flight.
type simWrite struct {
	block, index int
	done         waiter
}

// sim plays the engine, the guest and the fates of one volume.
type sim struct {
	*pair
	rng    *rand.Rand
	epoch  uint64
	stamp  uint64
	blocks [simBlocks]history
	flying []simWrite
	// complete is the epoch at which each copy is durably complete; lossy says that it
	// lost power since it was in step.
	complete map[*copyOf]uint64
	lossy    map[*copyOf]bool
	linked   bool
	trace    []string
}

// No acknowledged write is lost, whatever crashes, and after a resync the copies
// are byte-identical.
func TestCrashes(t *testing.T) {
	first, last := uint64(1), *simCount
	if testing.Short() {
		last = 20
	}
	if *simSeed != 0 {
		first, last = *simSeed, *simSeed
	}
	for seed := first; seed <= last; seed++ {
		if !t.Run(fmt.Sprint(seed), func(t *testing.T) { newSim(t, seed).run() }) {
			return
		}
	}
}

func newSim(t *testing.T, seed uint64) *sim {
	s := &sim{pair: newPair(t, 6<<20), rng: rand.New(rand.NewPCG(seed, 0)), epoch: 1}
	// Of the two extents and a half: they cool all the time, which flushes both copies, or never.
	s.hot = []int{2, 8}[s.rng.IntN(2)]
	s.complete = map[*copyOf]uint64{s.a: 1}
	s.lossy = map[*copyOf]bool{}
	for i := range s.blocks {
		s.blocks[i].stamps = []uint64{0}
	}
	t.Cleanup(func() {
		if t.Failed() {
			for _, line := range s.trace {
				t.Log(line)
			}
		}
	})
	return s
}

func (s *sim) note(format string, args ...any) {
	s.trace = append(s.trace, fmt.Sprintf(format, args...))
}

func (s *sim) run() {
	s.primary()
	s.secondary()
	s.must(s.p.GoAlone(1))
	for range 6 {
		for range 4 + s.rng.IntN(12) {
			s.guest()
		}
		s.fate()
	}
	s.settle()
}

func (s *sim) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func offset(b int) int64 { return int64(b) * 64 << 10 } // one block per region

// guest does one thing a guest may do.
func (s *sim) guest() {
	b := s.rng.IntN(simBlocks)
	if s.rng.IntN(2) == 0 {
		b = s.rng.IntN(4) // a hot spot, for overlaps
	}
	switch s.rng.IntN(10) {
	case 0:
		s.collect(false)
		covered := make([]int, simBlocks)
		for i := range s.blocks {
			covered[i] = s.blocks[i].acked
		}
		w := s.start(&Request{Op: OpFlush})
		if s.p.Progress().State != Frozen && s.p.Progress().State != Detached {
			if err := s.result(w); err != nil {
				s.t.Fatal(err)
			}
			for i := range s.blocks {
				s.blocks[i].flushed = max(s.blocks[i].flushed, covered[i])
			}
			s.note("flush")
		}
	case 1:
		if st := s.p.Progress().State; st.attached() || st == Alone {
			floor := s.blocks[b].acked
			s.observe(b, s.read(offset(b), simBlock), floor)
		}
	default:
		s.stamp++
		data := make([]byte, simBlock)
		for i := 0; i < len(data); i += 8 {
			binary.LittleEndian.PutUint64(data[i:], s.stamp)
		}
		m := &s.blocks[b]
		m.stamps = append(m.stamps, s.stamp)
		r := write(offset(b), data)
		r.FUA = s.rng.IntN(8) == 0
		s.note("write block %d stamp %d", b, s.stamp)
		s.flying = append(s.flying, simWrite{b, len(m.stamps) - 1, s.submit(r)})
		if len(s.flying) > 16 && s.p.Progress().State != Frozen {
			s.collect(true)
		}
	}
}

// submit lets a write wait for the next Kick now and then, so that fate may be faster.
func (s *sim) submit(r *Request) waiter {
	if s.rng.IntN(4) != 0 {
		return s.start(r)
	}
	w := make(waiter, 1)
	r.By = w
	s.p.Submit(r)
	return w
}

// collect takes the results that are there, or waits for all.
func (s *sim) collect(wait bool) {
	s.p.Kick()
	rest := s.flying[:0]
	for _, w := range s.flying {
		if !wait && w.done.pending() {
			rest = append(rest, w)
			continue
		}
		err := s.result(w.done)
		if err != nil && !errors.Is(err, ErrClosed) {
			s.t.Fatal(err)
		}
		if err == nil {
			s.blocks[w.block].acked = max(s.blocks[w.block].acked, w.index)
			s.note("acknowledged block %d stamp %d", w.block, s.blocks[w.block].stamps[w.index])
		}
	}
	s.flying = rest
}

// observe checks what was read of a block; from now on it must not be lost.
func (s *sim) observe(b int, data []byte, floor int) int {
	s.t.Helper()
	m := &s.blocks[b]
	got := binary.LittleEndian.Uint64(data)
	for i := 8; i < len(data); i += 8 {
		if binary.LittleEndian.Uint64(data[i:]) != got {
			return s.torn(b, data, floor)
		}
	}
	for i := len(m.stamps) - 1; i >= floor; i-- {
		if m.stamps[i] == got {
			m.acked = max(m.acked, i)
			return i
		}
	}
	s.t.Fatalf("block %d reads stamp %d, want one of %v", b, got, m.stamps[floor:])
	return 0
}

// torn accepts a block of which a power loss kept some sectors: each must be allowed.
func (s *sim) torn(b int, data []byte, floor int) int {
	s.t.Helper()
	m := &s.blocks[b]
	for at := 0; at < len(data); at += Sector {
		ok := false
		for _, stamp := range m.stamps[floor:] {
			ok = ok || stamp == binary.LittleEndian.Uint64(data[at:])
		}
		if !ok {
			s.t.Fatalf("block %d has a sector of stamp %d, want one of %v", b, binary.LittleEndian.Uint64(data[at:]),
				m.stamps[floor:])
		}
	}
	return -1
}

// fate lets something happen to the nodes or to what is between them.
func (s *sim) fate() {
	switch s.rng.IntN(8) {
	case 0, 1:
		s.settle()
	case 2:
		s.note("link lost")
		s.unlink()
		s.alone()
		s.reattach()
	case 3:
		s.note("link lost, same epoch")
		s.unlink()
		s.reattach()
	case 4:
		s.note("peer loses power")
		s.unlink()
		s.s.Close()
		s.serve.Wait()
		s.b.dev.(*disk).crash(s.rng)
		s.lossy[s.b] = true
		s.secondary()
		if s.rng.IntN(2) == 0 {
			s.alone()
		}
		s.reattach()
	case 5:
		s.note("primary's process restarts")
		s.kill()
		s.resurrect()
	case 6:
		s.note("primary loses power")
		s.kill()
		s.a.dev.(*disk).crash(s.rng)
		s.lossy[s.a] = true
		if s.complete[s.b] == s.epoch {
			s.swap()
			return
		}
		s.resurrect()
	case 7:
		s.blackout()
	}
}

// blackout takes the power of both.
func (s *sim) blackout() {
	s.note("blackout")
	s.kill()
	s.a.dev.(*disk).crash(s.rng)
	s.b.dev.(*disk).crash(s.rng)
	s.lossy[s.a], s.lossy[s.b] = true, true
	if s.complete[s.b] == s.epoch && s.rng.IntN(2) == 0 {
		s.swap()
		return
	}
	s.resurrect()
}

// unlink cuts the connection and waits until the primary knows.
func (s *sim) unlink() {
	if !s.linked {
		return
	}
	s.linked = false
	s.cut()
	lost := wantEvent[PeerLost](s.pair)
	s.serve.Wait()
	if lost.Required && !s.lossy[s.b] {
		s.collect(false)
		s.mirrored()
	}
}

// mirrored checks that the peer of a frozen volume has all that was acknowledged: it
// may be promoted at any moment.
func (s *sim) mirrored() {
	s.t.Helper()
	copied := s.b.dev.(*disk).bytes()
	for b := range s.blocks {
		s.observe(b, copied[offset(b):][:simBlock], s.blocks[b].acked)
	}
}

// alone is what arbitration grants when the peer is lost.
func (s *sim) alone() {
	s.epoch++
	s.complete[s.a] = s.epoch
	s.note("alone at epoch %d", s.epoch)
	s.must(s.p.GoAlone(s.epoch))
}

func (s *sim) reattach() {
	complete := s.complete[s.b] == s.epoch
	if !complete && s.p.Progress().State == Frozen {
		s.alone()
		complete = false
	}
	s.note("attach at epoch %d, peer complete %v", s.epoch, complete)
	s.must(s.attach(s.epoch, complete))
	s.linked = true
}

// kill ends the primary's process and the session.
func (s *sim) kill() {
	s.p.Close()
	s.s.Close()
	s.serve.Wait()
	s.linked = false
	s.collect(true)
	s.secondary() // a restart of its process as well, or the same: both must do
}

// resurrect starts the primary's process again, in the same role.
func (s *sim) resurrect() {
	s.forgive(s.a)
	s.primary()
	if s.complete[s.b] == s.epoch {
		s.reattach()
		return
	}
	s.alone()
	s.reattach()
}

// swap promotes the peer.
func (s *sim) swap() {
	s.note("peer promoted")
	s.a, s.b = s.b, s.a
	s.forgive(s.a)
	s.primary()
	s.secondary()
	s.alone()
	s.reattach()
}

// forgive lowers what may be expected of a copy that lost power: it keeps what was flushed.
func (s *sim) forgive(c *copyOf) {
	if !s.lossy[c] {
		return
	}
	for i := range s.blocks {
		s.blocks[i].acked = s.blocks[i].flushed
	}
}

// settle brings both in step, and checks everything.
func (s *sim) settle() {
	s.t.Helper()
	if !s.linked {
		s.reattach()
	}
	s.collect(true)
	if s.p.Progress().State != Connected {
		wantEvent[Drained](s.pair)
		if s.complete[s.b] != s.epoch {
			s.must(s.s.Complete(context.Background(), s.p.Ticket()))
			s.complete[s.b] = s.epoch
			s.must(s.p.PeerComplete())
			if s.rng.IntN(4) == 0 { // before anything else has flushed it
				s.blackout()
				s.settle()
				return
			}
		}
	}
	s.must(s.p.Hold(context.Background()))
	s.equal()
	s.lossy = map[*copyOf]bool{}
	for b := range s.blocks {
		m := &s.blocks[b]
		at := s.observe(b, s.read(offset(b), simBlock), m.acked)
		if at < 0 {
			continue // torn by a power loss: any of its stamps may be seen until it is written again
		}
		m.stamps = append(m.stamps[:0], m.stamps[at])
		m.acked, m.flushed = 0, 0
	}
	s.note("settled")
	s.p.Release()
}
