package sim

import (
	"fmt"
	"strings"

	"duet/appmodules"
	"duet/appmodules/engine"
)

// coverage counts how often each row of the table of appmodules was taken. A row that changes neither phase nor
// link nor reason is not told to anybody and not counted. It is for one goroutine and may be filled by many
// runs. A transition that no row explains is a failure: table and engine have drifted apart.
type coverage struct {
	rows  []appmodules.Row
	at    map[moment][]int // rows by phase and event
	taken []int
}

type moment struct {
	phase appmodules.Phase
	on    string
}

func newCoverage() *coverage {
	c := &coverage{rows: appmodules.Table(), at: map[moment][]int{}}
	for i, r := range c.rows {
		m := moment{r.From, r.On.String()}
		c.at[m] = append(c.at[m], i)
	}
	c.taken = make([]int, len(c.rows))
	return c
}

// transition finds the row that t is of, and with it the phase n is in now. Two rows of one moment that say and
// show the same cannot be told apart: the first counts.
func (c *coverage) transition(n *Node, t engine.Transition) error {
	for _, i := range c.at[moment{n.story.phase, t.On}] {
		if r := c.rows[i]; said(t.Why, r) && shows(r, t.To) {
			c.taken[i]++
			n.story.phase = r.To
			return nil
		}
	}
	return fmt.Errorf("%s in phase %v: no row for %s: %q", n.name, n.story.phase, t.On, t.Why)
}

// said: a reason is that of r, with what the engine adds to it.
func said(why string, r appmodules.Row) bool {
	row := appmodules.KindVM.Words().Fill(r.Why)
	return why == row || strings.HasPrefix(why, row+": ")
}

// shows: a row with this end is displayed so, with one of the links it may leave.
func shows(r appmodules.Row, text string) bool {
	for _, link := range []appmodules.Link{appmodules.NoLink, appmodules.InStep} {
		role, status := appmodules.Machine{Phase: r.To, Link: link}.Display()
		if (r.Link == appmodules.KeepLink || (r.Link == appmodules.NoLink) == (link == appmodules.NoLink)) &&
			text == fmt.Sprintf("%s/%s", role, status) {
			return true
		}
	}
	return false
}

// silent: nobody is told of such a row.
func silent(r appmodules.Row) bool {
	return r.On == appmodules.Look && r.From == r.To && r.Link == appmodules.KeepLink
}

// never lists the rows that were not taken, and how many could have been.
func (c *coverage) never() (rows []appmodules.Row, visible int) {
	for i, r := range c.rows {
		if silent(r) {
			continue
		}
		visible++
		if c.taken[i] == 0 {
			rows = append(rows, r)
		}
	}
	return rows, visible
}
