package sim

import (
	"slices"
	"strings"
	"time"

	"duet/vmmanager"
)

// health is the promise that a pair in step to which nothing happens stays in step, and that its guest never
// waits: whatever the witness does, and whatever happened before. It is rule 8: a lost witness or time alone
// must not separate a pair. The promise begins when both nodes show that they are in step and grace has passed
// since the last disturbance.
type health struct {
	disturbed int64 // when something last went wrong or was ordered
	since     int64 // when the pair was well after that; 0: it is not
}

const (
	// grace is how long what was begun before may still have its effect.
	grace = 3 * time.Second
	// hiccup is what a guest may wait for a healthy pair.
	hiccup = time.Second
)

// harmless are the lines of a script that disturb nobody. A verb that is missing here only makes the promise
// begin anew. One that is here wrongly makes sound engines fail.
var harmless = []string{"wait", "expect", "why", "runs", "never", "may", "holder", "complete", "writes", "stalls",
	"mark", "pause", "same", "compare", "verify", "glance", "avoid", "busy", "only-disks", "calm", "gone", "settle",
	"witness", "repeat", "refused", "differs", "proven", "finds"}

// line notes what the next line of a script does.
func (h *health) line(now int64, line string) {
	verb, _, _ := strings.Cut(line, " ")
	if !slices.Contains(harmless, verb) && !strings.Contains(line, names[witnessName]) {
		h.disturbed, h.since = now, 0
	}
}

// look notices that the pair is well. It is called whenever something has changed.
func (h *health) look(c *Cluster) {
	if h.since == 0 && c.well() {
		h.since = c.w.now
	}
}

// proven: the pair was well for long enough at the time then.
func (h *health) proven(then int64) bool {
	return h.since != 0 && then >= h.since && then-h.disturbed > int64(grace)
}

// well: nothing is wrong, the pair is in step and the guest runs. Where a fence agent may
// still be on its way, or a policy moves the VM by itself, nothing is promised.
func (c *Cluster) well() bool {
	if c.module.Policy.Failback == "auto" || c.check.apart || !c.settled() || c.net.drop > 0 {
		return false
	}
	for k := range wires {
		if c.net.cut[k][0][1] || c.net.cut[k][1][0] || c.net.delay[k] > 50*time.Millisecond {
			return false
		}
	}
	running := 0
	for _, n := range c.nodes {
		if n.host == nil || n.host.frozen || !n.answers() || n.exit.begun || n.disk.ails() || n.log.damaged != nil ||
			n.store.full || n.vms.fail || n.guest.deaf || n.guest.ill {
			return false
		}
		if n.guest.state == vmmanager.Running {
			running++
		}
	}
	return running == 1
}

// separated is told that the pair has left the state in which it was well.
func (k *checker) separated() {
	if k.health.proven(k.c.w.now) {
		k.fail("the pair separates although nothing is wrong: alpha is %s, beta is %s", k.c.nodes[0].story.shown,
			k.c.nodes[1].story.shown)
	}
	k.health.since = 0
}

// waited is told that the guest waited since then.
func (k *checker) waited(then int64) {
	if d := time.Duration(k.c.w.now - then); d > hiccup && k.health.proven(then) {
		k.fail("the guest waited for %v although nothing is wrong", d)
	}
}
