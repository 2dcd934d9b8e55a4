package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"duet/console/api"
	"duet/console/api/apitest"
)

// clock makes each look at the time d later than the one before.
func (b *bench) clock(d time.Duration) {
	now := apitest.Now()
	b.now = func() time.Time { now = now.Add(d); return now }
}

// orders are the command lines of all orders for db, which runs on beta.
var orders = []string{"start db", "stop db", "stop db --node alpha", "restart db", "swap db",
	"prim db --node alpha --yes", "second db --node beta --yes"}

// given counts the orders that reached the daemon.
func (b *bench) given() int {
	return len(slices.DeleteFunc(b.node.Asked(), func(s string) bool { return !strings.HasPrefix(s, "act ") }))
}

// TestOrderReached: each order that comes about ends with 0, on standard output, in one sentence that says where it
// runs and how many copies there are.
func TestOrderReached(t *testing.T) {
	for line, want := range map[string]string{
		"start db":                  "db runs on beta; alpha has the second copy",
		"stop db":                   "db is stopped",
		"stop db --node alpha":      "db is stopped on alpha and runs on beta",
		"stop db --node beta":       "db is stopped on beta and runs on alpha",
		"restart db":                "db runs on beta again",
		"swap db":                   "db runs on alpha",
		"prim db --node alpha":      "db runs on alpha; beta has the second copy",
		"second db --node beta":     "db runs on alpha; beta has the second copy",
		"stop old":                  "",
		"stop old --node alpha":     "old is stopped on alpha and runs nowhere",
		"swap db --no-wait":         "db has the order to swap",
		"stop web01 --node beta":    "web01 is stopped on beta and runs on alpha",
		"start web01":               "web01 runs on alpha; beta has the second copy",
		"prim db --node beta --yes": "db runs on beta; alpha has the second copy",
		"start db --node beta":      "db runs on beta; alpha has the second copy",
		"second web01 --node beta":  "web01 runs on alpha; beta has the second copy",
		"swap web01 --node alpha":   "web01 runs on beta",
		"prim web01 --node alpha":   "web01 runs on alpha; beta has the second copy",
		"second web01 --node alpha": "web01 runs on beta; alpha has the second copy",
	} {
		b := newBench(t, false)
		b.clock(time.Second)
		code := b.run(t.Context(), strings.Fields(line))
		if want == "" { // gamma is dead
			const unsure = "duet: gamma does not answer, so it is not known whether old has stopped there; on alpha it " +
				"stays stopped until `duet start old`\n"
			if code != exitError || b.err.String() != unsure {
				t.Errorf("%s:\n%s", line, b.transcript(code))
			}
			continue
		}
		if code != exitOK || b.out.String() != want+"\n" || b.err.String() != "" || b.given() != 1 {
			t.Errorf("%s, given %d times:\n%s", line, b.given(), b.transcript(code))
		}
	}
}

// TestOrderRefused: what a daemon refuses is its own sentence, with exit code 1 and the status of its kind, and it is
// not tried again.
func TestOrderRefused(t *testing.T) {
	for kind, status := range map[error]int{api.ErrConflict: 409, api.ErrUnreach: 502, api.ErrNotFound: 404,
		api.ErrInvalid: 400} {
		b := newBench(t, false)
		b.node.Fail = func(call string) error {
			if strings.HasPrefix(call, "act ") {
				return fmt.Errorf("beta is on its way: %w", kind)
			}
			return nil
		}
		for i, line := range orders {
			b.again()
			p := b.problem(t, line)
			if want := "beta is on its way: " + kind.Error(); p.Status != status || p.Detail != want ||
				b.given() != i+1 || b.out.String() != "" {
				t.Errorf("%s: %+v, given %d times, want %d %q\n%s", line, p, b.given(), status, want, b.out.String())
			}
		}
	}
}

// afterOrder gives a command line before a daemon that does nothing of what it is ordered; once it has the order, f
// answers each look at the status.
func afterOrder(t *testing.T, f func(looks int, w http.ResponseWriter, r *http.Request) bool) *bench {
	t.Helper()
	ordered, looks := false, 0
	b := behind(t, func(w http.ResponseWriter, r *http.Request) bool {
		if ordered && r.URL.Path == "/v1/status" {
			looks++
			return f(looks, w, r)
		}
		ordered = ordered || r.Method == http.MethodPost
		return false
	})
	b.node.Deaf = true
	return b
}

// TestOrderConnectionLost: an order whose daemon goes away while it is followed was given, and what became of it is
// not known; nobody waits for ever.
func TestOrderConnectionLost(t *testing.T) {
	for _, line := range orders {
		looks := 0
		b := afterOrder(t, func(n int, w http.ResponseWriter, r *http.Request) bool {
			looks = n
			return cut(w, r)
		})
		b.clock(time.Second)
		const want = "the order was given, what became of it is not known: duetd does not answer on SOCKET: is it " +
			"running? systemctl status duetd"
		if got := b.one(t, t.Context(), line, exitError); got != want || b.given() != 1 {
			t.Errorf("%s: given %d times, %q", line, b.given(), got)
		}
		if least := int(patience/time.Second) / 3; looks < least {
			t.Errorf("%s: given up after %d looks, want %d", line, looks, least)
		}
	}
}

// TestOrderOutlivesRestart: a daemon that is away for a moment, as during an upgrade, does not end the wait.
func TestOrderOutlivesRestart(t *testing.T) {
	for _, line := range []string{"stop db", "stop db --json"} {
		var b *bench
		b = afterOrder(t, func(n int, w http.ResponseWriter, r *http.Request) bool {
			if n <= 3 {
				return cut(w, r)
			}
			st := apitest.Sample()
			for i := range st.Modules[1].Nodes {
				st.Modules[1].Nodes[i].Role, st.Modules[1].Nodes[i].Status = "STOP", "NotReady"
			}
			b.node.Set(st)
			return false
		})
		b.clock(time.Second)
		if code := b.run(t.Context(), strings.Fields(line)); code != exitOK || b.err.String() != "" ||
			!strings.Contains(b.out.String(), "is stopped") {
			t.Errorf("%s:\n%s", line, b.transcript(code))
		}
	}
}

// TestOrderOfReleased: a module that is released while an order is followed ends the wait at once.
func TestOrderOfReleased(t *testing.T) {
	var b *bench
	b = afterOrder(t, func(n int, _ http.ResponseWriter, _ *http.Request) bool {
		st := apitest.Sample()
		if n > 1 {
			st.Modules = st.Modules[:1]
		}
		b.node.Set(st)
		return false
	})
	code := b.run(t.Context(), []string{"swap", "db"})
	const want = "duet: the order was given, what became of it is not known: module db: not found: there are web01\n"
	if code != exitError || !strings.HasSuffix(b.err.String(), want) {
		t.Errorf("%s", b.transcript(code))
	}
}

// TestOrderInterrupted: ctrl-C leaves the order standing, says so and where to look, and is no success.
func TestOrderInterrupted(t *testing.T) {
	for _, line := range orders[1:] { // db has started already
		b := newBench(t, false)
		b.node.Deaf = true
		stop := b.background(t, line)
		until(t, "the order and a look", func() bool { return b.given() == 1 && len(b.node.Asked()) > 3 })
		code := stop()
		said := strings.Split(strings.TrimSpace(b.err.String()), "\n")
		const want = "duet: the order stands and goes on without you: `duet status db` shows how far it is"
		if code != exitError || said[len(said)-1] != want || b.out.String() != "" {
			t.Errorf("%s:\n%s", line, b.transcript(code))
		}
	}
}

// TestOrderForEver: an order that gets on for ever is let go after half an hour.
func TestOrderForEver(t *testing.T) {
	var b *bench
	looks := 0
	b = afterOrder(t, func(n int, _ http.ResponseWriter, _ *http.Request) bool {
		looks = n
		b.node.Set(going(n, 0))
		return false
	})
	b.clock(time.Minute)
	code := b.run(t.Context(), []string{"swap", "db"})
	if code != exitError || !strings.Contains(b.err.String(), "the order stands and goes on without you") {
		t.Errorf("%s", b.transcript(code))
	}
	if looks < 5 || looks > int(orderTime/time.Minute) {
		t.Errorf("%d looks", looks)
	}
}

// going is the sample while db is on its way, for the nth time, with a guest that is ended in so many seconds.
func going(n int, kill float64) api.Status {
	st := apitest.Sample()
	x := &st.Modules[1].Nodes[0]
	x.Status, x.Why, x.Since, x.KillIn = "Transient", "the guest shuts down", x.Since.Add(time.Duration(n)), kill
	return st
}

// TestOrderSteps: what is waited for is told once in a pipe although it counts down, in place on a terminal, and not
// at all with --json.
func TestOrderSteps(t *testing.T) {
	const step = "beta is PRIM (Transient): the guest shuts down; what has not ended by itself is ended in 9 s"
	for _, c := range []struct {
		line     string
		tty      bool
		out, err string
	}{
		{"stop db", false, "db is stopped\n", step + "\n"},
		{"stop db --json", false, "", ""},
		{"stop db", true, "", ""},
	} {
		var b *bench
		b = afterOrder(t, func(n int, _ http.ResponseWriter, _ *http.Request) bool {
			st := going(0, float64(10-n))
			if n > 5 {
				st = apitest.Sample()
				for i := range st.Modules[1].Nodes {
					st.Modules[1].Nodes[i].Role, st.Modules[1].Nodes[i].Status = "STOP", "NotReady"
				}
			}
			b.node.Set(st)
			return false
		})
		b.outTTY = c.tty
		b.clock(time.Millisecond)
		code := b.run(t.Context(), strings.Fields(c.line))
		if code != exitOK || b.err.String() != c.err || c.out != "" && b.out.String() != c.out {
			t.Errorf("%s, terminal %v:\n%s", c.line, c.tty, b.transcript(code))
		}
		if !c.tty {
			continue
		}
		lines := strings.Split(b.out.String(), "\r")
		if len(lines) != 7 || !strings.HasSuffix(b.out.String(), "\r"+restOfLine+"db is stopped\n") {
			t.Errorf("on a terminal: %q", lines)
		}
		for _, l := range lines[1:6] {
			if text := strings.TrimSuffix(l, restOfLine); len([]rune(text)) != 79 || !strings.HasSuffix(text, "…") {
				t.Errorf("a line that does not fit into 80 columns: %q", text)
			}
		}
	}
}

// TestConfirm: what may throw data away wants the word yes of a terminal; all else changes nothing.
func TestConfirm(t *testing.T) {
	for _, c := range []struct {
		line, in, want string
		tty            bool
		code, orders   int
	}{
		{"prim web01 --node beta", "yes\n", "", true, 0, 2},
		{"prim web01 --node beta", "  yes \r\n", "", true, 0, 2},
		{"prim web01 --node beta", "yes", "", true, 0, 2},
		{"prim web01 --node beta", "YES\n", "not confirmed, nothing was changed", true, 1, 1},
		{"prim web01 --node beta", "\nyes\n", "not confirmed, nothing was changed", true, 1, 1},
		{"prim web01 --node beta", "", "not confirmed, nothing was changed", true, 1, 1},
		{"prim web01 --node beta", "", "prim of web01 wants a confirmation: repeat with --yes to do it all the same",
			false, 1, 1},
		{"prim web01 --node beta", "yes\n", "repeat with --yes", false, 1, 1},
		{"prim web01 --node beta --no-wait", "yes\n", "", true, 0, 2},
		{"cluster remove beta", "yes\n", "", true, 0, 0},
		{"cluster remove beta", "no\n", "not confirmed, nothing was changed", true, 1, 0},
		{"cluster remove beta", "yes\n", "beta is a node of web01, db: they have one copy from then on, until a node joins " +
			"in its place.\nWhat only beta has stays on it, and is not used any more.\nduet: to remove beta wants a " +
			"confirmation: repeat with --yes if it is gone for good\n", false, 1, 0},
	} {
		b := newBench(t, false)
		b.node.Set(dead())
		b.in, b.inTTY = strings.NewReader(c.in), c.tty
		b.clock(time.Second)
		code := b.run(t.Context(), strings.Fields(c.line))
		if code != c.code || !strings.Contains(b.err.String(), c.want) || b.given() != c.orders {
			t.Errorf("%s < %q, terminal %v: given %d times:\n%s", c.line, c.in, c.tty, b.given(), b.transcript(code))
		}
		removed := slices.Contains(b.node.Asked(), "remove node beta")
		if removed != (strings.HasPrefix(c.line, "cluster") && c.code == 0) {
			t.Errorf("%s < %q: asked %q", c.line, c.in, b.node.Asked())
		}
	}
}

// dead is the sample, and beta does not answer.
func dead() api.Status {
	st := apitest.Sample()
	st.Nodes[1].Alive = false
	return st
}

// TestRemoveRefused: of a node that the daemon would not remove nobody is asked.
func TestRemoveRefused(t *testing.T) {
	const want = "duet: not possible now: node beta answers: stop its duetd first, for good: `systemctl disable --now " +
		"duetd` there\n"
	b := newBench(t, false)
	b.in, b.inTTY = strings.NewReader("yes\n"), true
	code := b.run(t.Context(), strings.Fields("cluster remove beta"))
	if code != exitError || b.err.String() != want || slices.Contains(b.node.Asked(), "remove node beta") {
		t.Error(b.transcript(code))
	}
}

// TestStartedElsewhere: a start that ends on the other node says why it runs there, in the words of status; one that
// names a node, or ends here, does not.
func TestStartedElsewhere(t *testing.T) {
	at := apitest.Now().Add(-time.Hour)
	for _, c := range []struct {
		line, self, want string
	}{
		{"start db", "alpha", "db runs on beta; alpha has the second copy. db is on beta since 2026-03-14 14:09:26 (1h): " +
			"alpha's disk is old\n"},
		{"start db --node beta", "alpha", "db runs on beta; alpha has the second copy\n"},
		{"start db", "beta", "db runs on beta; alpha has the second copy\n"},
	} {
		b := newBench(t, false)
		st := apitest.Sample()
		st.Self = c.self
		for i := range st.Modules[1].Nodes {
			if n := &st.Modules[1].Nodes[i]; n.Node == "beta" {
				n.Came = &api.Arrival{At: &at, Why: "alpha's disk is old"}
			}
		}
		b.node.Set(st)
		if code := b.run(t.Context(), strings.Fields(c.line)); code != exitOK || b.out.String() != c.want {
			t.Errorf("%s on %s:\n%s", c.line, c.self, b.transcript(code))
		}
	}
}

// TestLeaveAsked: a node leaves after the word yes only.
func TestLeaveAsked(t *testing.T) {
	for in, want := range map[string]int{"yes\n": exitOK, "y\n": exitError, "": exitError} {
		for _, line := range []string{"cluster leave", "cluster rejoin 10.0.0.1 --token duet1.x.y"} {
			b := newBench(t, true)
			b.in, b.inTTY = strings.NewReader(in), true
			code := b.run(t.Context(), strings.Fields(line))
			if left := len(b.paper.asked) > 0; code != want || left != (want == exitOK) {
				t.Errorf("%s < %q:\n%s", line, in, b.transcript(code))
			}
		}
	}
}

// TestConfirmInterrupted: ctrl-C at a question changes nothing and leaves the prompt on a line of its own.
func TestConfirmInterrupted(t *testing.T) {
	b := newBench(t, false)
	in, end := io.Pipe()
	defer end.Close()
	b.in, b.inTTY = in, true
	ctx, cancel := context.WithCancel(t.Context())
	code := make(chan int)
	go func() { code <- b.run(ctx, strings.Fields("prim web01 --node beta")) }()
	until(t, "the question", func() bool { return strings.Contains(b.err.String(), "Type yes to go on: ") })
	cancel()
	if got := <-code; got != exitError || !strings.HasSuffix(b.err.String(), "go on: \nduet: interrupted\n") {
		t.Errorf("%s", b.transcript(got))
	}
	if b.given() != 1 {
		t.Errorf("given %d times", b.given())
	}
}
