package cluster

import "testing"

// TestNobodyIsStuck: whatever happened, while both nodes and the witness live and
// messages can arrive, there is a way for a node to acknowledge writes again, without
// an operator. Only states that leave two more epochs to ask for count, as the bound
// would stop the others.
func TestNobodyIsStuck(t *testing.T) {
	if testing.Short() || raceDetector {
		t.Skip("takes long with the race detector, and there is one goroutine: run it without -race and -short")
	}
	m := &model{bounds: bounds{epochs: 4, writes: 1, messages: 1}, strict: true}
	res, v := m.visit()
	if res.violation != "" {
		t.Fatal(res)
	}
	good := m.wayOut(v)
	for id := range v.len() {
		if s := v.state(id); !good[id] && s.promised()+2 <= m.epochs {
			t.Fatal(result{violation: "nobody can go on", states: v.len(), trace: m.trace(v, id)})
		}
	}
	t.Logf("%d states", v.len())
}

// wayOut tells for each state whether one in which a node acknowledges writes can follow.
func (m *model) wayOut(v *visited) []bool {
	good := make([]bool, v.len())
	for id := range good {
		s := v.state(id)
		good[id] = m.canWrite(s, 0) || m.canWrite(s, 1)
	}
	for changed := true; changed; {
		changed = false
		for id := len(good) - 1; id >= 0; id-- { // what follows was mostly found later
			for _, next := range m.next(*v.state(id)) {
				if good[id] {
					break
				}
				to, _ := v.add(next.to, id)
				good[id] = good[to]
				changed = changed || good[id]
			}
		}
	}
	return good
}

// promised is the newest epoch that any voter has promised.
func (s *state) promised() Epoch {
	return max(s.n[0].rec.unpack().Promised, s.n[1].rec.unpack().Promised, s.witness.unpack().Promised)
}
