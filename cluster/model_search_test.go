package cluster

import (
	"fmt"
	"math/bits"
	"slices"
	"strings"
)

// The search: breadth first, so that the first violation has the shortest trace.

// root states: a new module, and a pair in step, which keeps the traces short.
func roots() []state {
	source := pack(Record{Epoch: 1, Holder: a, Promised: 1, To: a, Complete: 1, Alone: true})
	empty := pack(Record{Epoch: 1, Holder: a, Promised: 1, To: a})
	first := ledger(0).with(1, alphaNode)
	fresh := state{granted: first, won: first}
	fresh.n[0], fresh.n[1] = node{rec: source}, node{rec: empty}

	both := pack(Record{Epoch: 1, Holder: a, Promised: 1, To: a, Complete: 1})
	pair := state{granted: first, won: first}
	pair.n[0] = node{rec: both, phase: inStep, link: 1}
	pair.n[1] = node{rec: both, phase: following, link: 1}
	return []state{pair, fresh}
}

// canWrite reports that node i acknowledges writes at once, or has a peer that will.
func (m *model) canWrite(s *state, i uint8) bool {
	n := &s.n[i]
	return m.alone(n) || (n.phase.needsPeer() && m.serves(s, i, n.link))
}

// broken returns the promise that s breaks, or nothing.
func (m *model) broken(s *state) string {
	newest := s.won.newest()
	can := [2]bool{}
	for i := range uint8(2) {
		n, r := &s.n[i], s.n[i].rec.unpack()
		can[i] = m.canWrite(s, i)
		missing := s.acked &^ n.data
		if can[i] && missing != 0 {
			return fmt.Sprintf("%s acknowledges writes and lacks the acknowledged %s", nodeID(i), mask(missing))
		}
		if r.IsComplete() && r.Epoch == newest && missing != 0 {
			return fmt.Sprintf("the record of %s says complete at the newest epoch %d, but it lacks the acknowledged %s",
				nodeID(i), newest, mask(missing))
		}
	}
	if can[0] && can[1] {
		return "both nodes acknowledge writes"
	}
	if s.won.get(newest) == 3 {
		return fmt.Sprintf("epoch %d was won by both nodes", newest)
	}
	return ""
}

// invalid returns what a record of s says and must not, or nothing. It is no promise
// of its own but what the promises rest on, so the search for flaws leaves it out.
func invalid(s *state) string {
	for i, p := range [...]packed{s.n[0].rec, s.n[1].rec, s.witness} {
		if err := p.unpack().Valid(nodeID(uint8(i))); err != nil {
			return fmt.Sprintf("%s: %v", nodeID(uint8(i)), err)
		}
	}
	for i := range s.n {
		r, peer := s.n[i].rec.unpack(), s.n[1-i].rec.unpack()
		if r.Alone && peer.Epoch == r.Epoch && peer.Holder == r.Holder && peer.IsComplete() {
			return fmt.Sprintf("%s is alone at epoch %d, but its peer is complete at it", nodeID(uint8(i)), r.Epoch)
		}
	}
	return ""
}

// check returns what is wrong with s, or nothing.
func (m *model) check(s *state) string {
	if why := m.broken(s); why != "" || m.without != none {
		return why
	}
	return invalid(s)
}

// result of a search.
type result struct {
	states    int
	depth     int
	complete  bool // every state within the bounds was visited
	seen      [opens + 1]bool
	violation string
	trace     []string
}

// search visits every state that m can reach.
func (m *model) search() result {
	res, _ := m.visit()
	return res
}

func (m *model) visit() (res result, v *visited) {
	v = newVisited()
	for _, s := range roots() {
		s.tidy()
		v.add(s, 0)
	}
	layer := v.len()
	for at := 0; at < v.len(); at++ {
		if at == layer {
			res.depth++
			layer = v.len()
		}
		for _, next := range m.next(*v.state(at)) {
			res.seen[next.how.did] = true
			id, isNew := v.add(next.to, at)
			if !isNew {
				continue
			}
			if res.violation = m.check(&next.to); res.violation != "" {
				res.states, res.trace = v.len(), m.trace(v, id)
				return res, v
			}
		}
		if m.states > 0 && v.len() > m.states {
			res.states = v.len()
			return res, v
		}
	}
	res.states, res.complete = v.len(), true
	return res, v
}

// trace tells how state id was reached.
func (m *model) trace(v *visited, id int) []string {
	var lines []string
	for id >= len(roots()) {
		before, to := v.parent(id), *v.state(id)
		k := slices.IndexFunc(m.next(*v.state(before)), func(n succ) bool { return n.to == to })
		lines = append(lines, fmt.Sprintf("%v\n%v", m.out[k].how, to))
		id = before
	}
	lines = append(lines, fmt.Sprintf("start\n%v", *v.state(id)))
	slices.Reverse(lines)
	return lines
}

// String is the violation and its trace, with step numbers.
func (r result) String() string {
	var out strings.Builder
	fmt.Fprintf(&out, "%s, after %d states:\n", r.violation, r.states)
	for i, line := range r.trace {
		fmt.Fprintf(&out, "%2d. %s\n", i, line)
	}
	return out.String()
}

// visited is a set of states in the order in which they were added, with the state
// each was first reached from. It grows in chunks, so that states are never copied.
type visited struct {
	chunks [][]entry
	count  int
	table  []uint64 // open addressing: half of the hash, then id+1; 0 is free
}

type entry struct {
	state  state
	parent uint32
}

const chunkSize = 1 << 16

func newVisited() *visited { return &visited{table: make([]uint64, 1<<16)} }

func (v *visited) len() int { return v.count }

func (v *visited) at(id int) *entry { return &v.chunks[id/chunkSize][id%chunkSize] }

func (v *visited) state(id int) *state { return &v.at(id).state }

func (v *visited) parent(id int) int { return int(v.at(id).parent) }

// add returns the id of s and whether it is new.
func (v *visited) add(s state, parent int) (id int, isNew bool) {
	h := s.hash()
	slot := h & uint64(len(v.table)-1)
	for ; v.table[slot] != 0; slot = (slot + 1) & uint64(len(v.table)-1) {
		id := int(uint32(v.table[slot])) - 1
		if v.table[slot]>>32 == h>>32 && *v.state(id) == s {
			return id, false
		}
	}
	if v.count%chunkSize == 0 {
		v.chunks = append(v.chunks, make([]entry, 0, chunkSize))
	}
	last := &v.chunks[len(v.chunks)-1]
	*last = append(*last, entry{s, uint32(parent)})
	v.count++
	v.table[slot] = h>>32<<32 | uint64(v.count)
	if v.count*10 > len(v.table)*7 {
		v.grow()
	}
	return v.count - 1, true
}

func (v *visited) grow() {
	v.table = make([]uint64, 2*len(v.table))
	for id := range v.count {
		h := v.state(id).hash()
		slot := h & uint64(len(v.table)-1)
		for v.table[slot] != 0 {
			slot = (slot + 1) & uint64(len(v.table)-1)
		}
		v.table[slot] = h>>32<<32 | uint64(id+1)
	}
}

// hash mixes all fields, each well enough that both halves of it count.
func (s *state) hash() uint64 {
	h := uint64(0)
	mix := func(x uint64) {
		hi, lo := bits.Mul64(h^x^0xa0761d6478bd642f, 0xe7037ed1a0b428db)
		h = hi ^ lo
	}
	for _, n := range s.n {
		x := uint64(n.rec) | uint64(n.data)<<16 | uint64(n.phase)<<24 | uint64(n.link)<<32
		if n.asking {
			x |= 1 << 40
		}
		mix(x)
	}
	mix(uint64(s.witness) | uint64(s.acked)<<16 | uint64(s.writes)<<24 | uint64(s.granted)<<32 | uint64(s.won)<<48)
	mix(uint64(s.msgs[0]) | uint64(s.msgs[1])<<16 | uint64(s.msgs[2])<<32 | uint64(s.msgs[3])<<48)
	return h
}
