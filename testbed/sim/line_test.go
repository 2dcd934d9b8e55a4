package sim

import "testing"

// TestRefusedIsOfTheNewest: a command to a daemon that does not run has no answer, and none of an earlier one either.
func TestRefusedIsOfTheNewest(t *testing.T) {
	s := script{"set witness on", "start", "kill beta", "expect alpha ALONE/Ready within 10s", "command alpha swap",
		"refused alpha its peer is not in step", "kill alpha", "command alpha start", "refused alpha its peer"}
	if _, err := s.run(1, false); err == nil || err.Error() != "refused alpha its peer: it was accepted" {
		t.Error(err)
	}
}

// TestLooksDisturbNobody: a line that only looks does not begin the promise of a healthy pair anew.
func TestLooksDisturbNobody(t *testing.T) {
	c := newCluster(1, false, nil)
	defer c.close()
	for _, line := range []string{"set witness on", "start", "wait 10s"} {
		if err := c.doLine(line); err != nil {
			t.Fatal(err)
		}
	}
	since := c.check.health.since
	for _, line := range []string{"refused alpha x", "differs 1 within 1ms", "proven alpha within 1ms",
		"finds alpha beta within 1ms", "runs alpha", "same", "compare"} {
		_ = c.doLine(line) // what it looks for need not be there
		if h := c.check.health; since == 0 || h.since != since {
			t.Errorf("%s disturbs: well since %d, and %d before", line, h.since, since)
		}
	}
}

// TestProvenWithoutDaemon: it is an expectation that is not met.
func TestProvenWithoutDaemon(t *testing.T) {
	for _, line := range []string{"proven alpha within 1ms", "finds alpha beta within 1ms"} {
		s := script{"set witness on", "start", "kill alpha", line}
		if _, err := s.run(1, false); err == nil {
			t.Errorf("%s: it is met", line)
		}
	}
}
