package sim

import (
	"fmt"

	"duet/appmodules"
	"duet/appmodules/engine"
)

// story is what the transcript and the checks have seen of a node. It is told by transitions, not by a look at
// the engine, so `expect` and `settled` see what an admin would see.
type story struct {
	shown string           // role and status
	phase appmodules.Phase // as the transitions say, for coverage
	told  [2]string        // last two transitions of the transcript
	again int              // how often one of them came again
}

// off is what a node without a daemon shows.
const off = "off"

func (n *Node) show(s engine.Status) { n.story.shown = s.Role.String() + "/" + s.Status.String() }

// transition is where every engine tells every transition, so what must hold at each of them is checked here: no
// false alarm of the proof, no pair that separates for nothing, no row that the table does not have.
func (c *Cluster) transition(n *Node, t engine.Transition) {
	if t.On == engine.OnProof && !c.harmed() {
		c.check.fail("%s raises a false alarm: %s", n.name, t.Why)
	}
	n.story.shown, c.stirred = t.To, c.w.now
	c.check.transition(n)
	if c.cover != nil {
		if err := c.cover.transition(n, t); err != nil {
			c.check.fail("%v", err)
		}
	}
	if c.out != nil {
		n.story.tell(n, fmt.Sprintf("%s → %s: %s", t.From, t.To, t.Why))
	}
}

// tell adds a transition to the transcript. Two that alternate are told once. So a transcript stays short where
// a node tries again and again; the checks see every one.
func (s *story) tell(n *Node, text string) {
	if text == s.told[0] {
		s.told[0], s.told[1] = s.told[1], text
		s.again++
		return
	}
	s.tellAgain(n)
	s.told[0], s.told[1] = s.told[1], text
	n.c.note("%s: %s", n.name, text)
}

// tellAgain ends an alternation.
func (s *story) tellAgain(n *Node) {
	if s.again > 0 {
		n.c.note("(%s: %d times more one of the last two)", n.name, s.again)
		s.told, s.again = [2]string{}, 0
	}
}
