package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"duet/console/api"
	"duet/console/api/apitest"
)

// on is a module's state on a node, as "PRIM/Ready" or "PRIM/Transient frozen"; a ? before it: it was that.
func on(node, text string) api.NodeState {
	state, vm, _ := strings.Cut(text, " ")
	state, stale := strings.CutPrefix(state, "?")
	role, status, _ := strings.Cut(state, "/")
	return api.NodeState{Node: node, Role: role, Status: status, VM: vm, Why: "so it is", Since: apitest.Now(), Epoch: 3,
		Holder: "alpha", Complete: true, Stale: stale, Stopped: role == "STOP"}
}

// pair is a cluster of alpha, which is asked, and beta with the one module m as it stands on both.
func pair(here, there string) api.Status {
	return api.Status{Cluster: "office", Self: "alpha", Version: "1.0",
		Nodes:   []api.NodeStatus{{Name: "alpha", Alive: true}, {Name: "beta", Alive: !strings.HasPrefix(there, "?")}},
		Modules: []api.ModuleStatus{{Name: "m", Kind: "vm", Nodes: []api.NodeState{on("alpha", here), on("beta", there)}}}}
}

// again lets a command line be run once more.
func (b *bench) again() {
	b.out, b.err = &output{}, &output{}
	b.app.out, b.app.err, b.began = b.out, b.err, false
}

// TestStatusExit: for each way in which a module can stand, how the cluster stands and the module does, which is the
// exit code, and the role on each node, which is that of -q.
func TestStatusExit(t *testing.T) {
	b := newBench(t, false)
	for _, c := range []struct {
		here, there                 string
		cluster, module, alpha, bet int
	}{
		{"PRIM/Ready running", "SECOND/Ready off", 0, 0, 3, 4},
		{"SECOND/Ready off", "PRIM/Ready running", 0, 0, 4, 3},
		{"ALONE/Ready running", "SECOND/Transient off", 10, 10, 2, 4},
		{"ALONE/Ready running", "STOP/NotReady off", 10, 10, 2, 0},
		{"ALONE/Ready running", "?PRIM/Ready", 10, 10, 2, 5},
		{"PRIM/Transient frozen", "SECOND/NotReady off", 11, 11, 3, 4},
		{"WAIT/NotReady off", "?PRIM/Ready", 11, 11, 1, 5},
		{"WAIT/NotReady off", "WAIT/NotReady off", 11, 11, 1, 1},
		{"STOP/NotReady off", "STOP/NotReady off", 0, 0, 0, 0},
		{"STOP/NotReady off", "?STOP/NotReady", 10, 10, 0, 5}, // whether both have its data is not known
		{"ALONE/Ready running", "SECOND/Ready off", 10, 10, 2, 4},
		{"UP/Ready running", "UP/Ready running", 10, 10, 2, 2},
		{"UNKNOWN/NotReady", "ARBITER/Ready", 11, 11, 5, 5}, // a role of a newer release
	} {
		b.node.Set(pair(c.here, c.there))
		for line, want := range map[string]int{"status": c.cluster, "status m": c.module, "status --json": c.cluster,
			"status -q": c.cluster, "status m -q": c.alpha, "status m -q --node beta": c.bet, "status m -q --json": c.alpha,
			"status m --json": c.module, "status --node beta": c.cluster, "status m --node beta": c.module} {
			b.again()
			code := b.run(t.Context(), strings.Fields(line))
			quiet := strings.Contains(line, "-q")
			if code != want || b.err.String() != "" || quiet == (b.out.String() != "") {
				t.Errorf("%s | %s: duet %s: want %d\n%s", c.here, c.there, line, want, b.transcript(code))
			}
			if strings.Contains(line, "--json") && !quiet && !json.Valid([]byte(b.out.String())) {
				t.Errorf("duet %s is not JSON: %s", line, b.out.String())
			}
		}
	}
}

// TestStatusOneIsDown: the exit code of one module is its own, whatever the others do, and an alarm degrades it.
func TestStatusOneIsDown(t *testing.T) {
	st := pair("PRIM/Ready running", "SECOND/Ready off")
	down := pair("WAIT/NotReady off", "?PRIM/Ready").Modules[0]
	down.Name = "down"
	alarmed := pair("PRIM/Ready running", "SECOND/Ready off").Modules[0]
	alarmed.Name, alarmed.Nodes[0].Notices = "alarmed", []api.Notice{{Level: "alarm", Code: "x", Text: "copies differ"}}
	st.Modules = append(st.Modules, down, alarmed)
	for line, want := range map[string]int{"status": 11, "status -q": 11, "cluster status": 11, "status m": 0,
		"status down": 11, "status alarmed": 10, "status alarmed -q": 3} {
		b := newBench(t, false)
		b.node.Set(st)
		if code := b.run(t.Context(), strings.Fields(line)); code != want {
			t.Errorf("duet %s: exit %d, want %d", line, code, want)
		}
	}
}

// TestStatusCannotBeTold: with -q a question that has no answer ends with 5 and says why, and with --json too.
func TestStatusCannotBeTold(t *testing.T) {
	for line, want := range map[string]string{
		"status x -q":             "module x: not found: there are m",
		"status m -q --node zeta": "node zeta: not found, did you mean beta? There are alpha, beta",
		"status -q --node zeta":   "node zeta: not found, did you mean beta? There are alpha, beta",
	} {
		st := pair("PRIM/Ready running", "SECOND/Ready off")
		b := newBench(t, false)
		b.node.Set(st)
		if got := b.one(t, t.Context(), line, exitUnknown); got != want {
			t.Errorf("duet %s: %q, want %q", line, got, want)
		}
		b = newBench(t, false)
		b.node.Set(st)
		code := b.run(t.Context(), strings.Fields(line+" --json"))
		var p struct{ Status int }
		if err := json.Unmarshal([]byte(b.err.String()), &p); err != nil || p.Status != 404 || code != exitUnknown {
			t.Errorf("duet %s --json: %v\n%s", line, err, b.transcript(code))
		}
	}
}

// TestContradictions: flags that exclude each other are a wrong command line, and nothing is asked.
func TestContradictions(t *testing.T) {
	b := newBench(t, false)
	for line, want := range map[string]string{
		"status -q --watch":                                   "-q and --watch: one of them (duet status --help shows how)",
		"status db -q -w":                                     "-q and --watch: one of them (duet status --help shows how)",
		"vm protect web --check --no-wait":                    "none of the others can be",
		"vm protect web --config x.yaml --arbitration safe":   "none of the others can be",
		"vm protect web --config x.yaml --primary any":        "none of the others can be",
		"cluster fence set beta --agent fence_x --file x":     "give --agent and its --option, or --file",
		"cluster fence set beta --file x --timeout 1m":        "--timeout goes with --agent",
		"cluster fence set beta --option ip=1":                "give --agent and its --option, or --file",
		"cluster fence set beta --agent fence_x --option ip":  `--option "ip": write KEY=VALUE`,
		"cluster fence set beta --agent fence_x --option =ip": `--option "=ip": write KEY=VALUE`,
		"log db --lines=-1":                                   "-n -1: must be at least 1",
		"log db -n ten":                                       "is wanted",
		"cluster token --life soon":                           "is wanted",
		"cluster init --name o --node a --addr 10.0.0.1 x":    `"x" is too much`,
		"vm protect web --image beta:=/x":                     "write NODE:DISK=PATH",
		"vm protect web --image :vda=/x":                      "write NODE:DISK=PATH",
		"vm protect web --image beta:vda=":                    "write NODE:DISK=PATH",
		"volume verify db/":                                   "say MODULE/TARGET",
		"volume verify /vda":                                  "say MODULE/TARGET",
		"volume export v1":                                    "say which FILE",
		"cluster witness":                                     "say one of add, list, remove",
		"cluster ping":                                        "say one of list, remove, set",
		"cluster ping set":                                    "say which IP",
		"cluster fence":                                       "say one of list, remove, set, test",
	} {
		b.again()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second) // what is taken may go on for ever
		got := b.one(t, ctx, line, exitUsage)
		cancel()
		if !strings.Contains(got, want) || len(b.node.Asked()) > 0 {
			t.Errorf("duet %s: %q, want %q; asked %q", line, got, want, b.node.Asked())
		}
	}
}

// TestStatusNamesWhatIsToMend: the whole status names the worst of what is to be mended of a module that runs well, as
// that it cannot be given to a new peer; a long sentence is cut off.
func TestStatusNamesWhatIsToMend(t *testing.T) {
	st := pair("ALONE/Ready running", "SECOND/Transient off")
	st.Modules[0].Nodes[0].Notices = []api.Notice{{Level: "note", Text: "UEFI"},
		{Level: "warning", Text: "VM m is paused"},
		{Level: "refused", Text: "beta cannot be given it: VM m is there already: `virsh undefine m` there"}}
	said := func() string {
		b := newBench(t, false)
		b.width = func() int { return 0 }
		b.node.Set(st)
		b.run(t.Context(), []string{"status"})
		return b.out.String()
	}
	if got := said(); !strings.Contains(got, "\nModule m has something to mend (2): on alpha: beta cannot be given it: "+
		"VM m is there already: `virsh undefine m` there; duet status m shows more.\n") {
		t.Error(got)
	}
	st.Modules[0].Nodes[0].Notices[2].Text = strings.Repeat("so it is ", 100)
	if got := said(); !strings.Contains(got, "…; duet status m shows more.") {
		t.Error(got)
	}
}

// TestStatusTellsOfRemoved: who was removed, when, and how it comes back.
func TestStatusTellsOfRemoved(t *testing.T) {
	at := apitest.Now().Add(-time.Hour)
	st := pair("ALONE/Ready running", "?SECOND/Ready")
	st.Nodes, st.Gone = st.Nodes[:1], []api.GoneNode{{Name: "beta", At: &at}, {Name: "gamma"}}
	for _, line := range []string{"status", "cluster status"} {
		b := newBench(t, false)
		b.width = func() int { return 0 }
		b.node.Set(st)
		b.run(t.Context(), strings.Fields(line))
		for _, want := range []string{"\nbeta was removed at 2026-03-14 14:09:26 (1h ago): `duet cluster token` here and " +
			"`duet cluster rejoin` there bring it back; a new computer joins with --node beta.\n",
			"\ngamma was removed: `duet"} {
			if !strings.Contains(b.out.String(), want) {
				t.Errorf("%s: %q is not said:\n%s", line, want, b.out)
			}
		}
	}
}

// TestStatusOfRemovedSaysNothingOfOthers: a node that was removed is told nothing by the others, who may be up.
func TestStatusOfRemovedSaysNothingOfOthers(t *testing.T) {
	st := removed(pair("WAIT/NotReady off", "?PRIM/Ready"))
	silent := apitest.Now().Add(-4 * time.Second)
	st.Nodes[1].Silent, st.Nodes[1].Paths = &silent, map[string]bool{"net0": false}
	b := newBench(t, false)
	b.node.Set(st)
	b.run(t.Context(), []string{"status"})
	got := b.out.String() + strings.Join(changes(api.Status{}, st), "\n")
	if strings.Contains(got, "down") || strings.Contains(got, "silent") || strings.Count(got, "not known") != 2 {
		t.Errorf("it says\n%s", got)
	}
}

// TestStatusOfUnknown: nothing is said of what is not known, as by a node that was removed and has heard of nobody
// since.
func TestStatusOfUnknown(t *testing.T) {
	st := pair("WAIT/NotReady off", "?UNKNOWN/NotReady")
	here, there := &st.Modules[0].Nodes[0], &st.Modules[0].Nodes[1]
	here.Holder, here.Epoch = "", 0
	there.Holder, there.Epoch, there.Since = "", 0, time.Time{}
	b := newBench(t, false)
	b.node.Set(st)
	b.run(t.Context(), []string{"status", "m"})
	b.run(t.Context(), []string{"status"})
	got := b.out.String() + strings.Join(changes(api.Status{}, st), "\n")
	for _, no := range []string{"UNKNOWN", "0001", "106751d", "nobody", "On beta", "epoch 0"} {
		if strings.Contains(got, no) {
			t.Errorf("%s is said:\n%s", no, got)
		}
	}
	if !strings.Contains(got, "\nOn alpha since 2026-03-14 15:09:26 (0s).\n") {
		t.Error(got)
	}
	there.Holder, there.Epoch = "alpha", 3
	b.again()
	b.node.Set(st)
	b.run(t.Context(), []string{"status", "m"})
	if !strings.Contains(b.out.String(), "\nOn beta: epoch 3 is of alpha.\n") {
		t.Error(b.out)
	}
}

// TestModuleSaysWhy: where a module is not well, its own status says first why, also where each of its nodes is Ready
// and of whichever of them it is asked; of other modules it says nothing, and nothing of one that is well.
func TestModuleSaysWhy(t *testing.T) {
	const why = "DEGRADED: 1 module on both of its nodes; safe to lose: no node, because nobody decides for m when they " +
		"lose each other: add a witness\n"
	said := func(st api.Status, line string) string {
		b := newBench(t, false)
		b.width = func() int { return 0 }
		b.node.Set(st)
		b.run(t.Context(), strings.Fields(line))
		return b.out.String()
	}
	st := pair("PRIM/Ready running", "SECOND/Ready off")
	other := pair("ALONE/Ready running", "?SECOND/Ready").Modules[0]
	other.Name = "web02"
	st.Modules = append(st.Modules, other)
	if got := said(st, "status m"); !strings.HasPrefix(got, "MODULE") {
		t.Error(got)
	}
	st.Modules[0].Decides = api.Nobody
	for _, line := range []string{"status m", "status m --node alpha", "status m --node beta"} {
		if got := said(st, line); !strings.HasPrefix(got, why) || strings.Contains(got, "web02") {
			t.Errorf("%s:\n%s", line, got)
		}
	}
	if got := said(removed(st), "status m"); !strings.HasPrefix(got, "MODULE") { // the line below it says that
		t.Error(got)
	}
	// In JSON the verdict is that of the cluster.
	b := newBench(t, false)
	b.node.Set(st)
	stop := b.background(t, "status m --watch --json")
	until(t, "first view", func() bool { return strings.HasSuffix(b.out.String(), "\n") })
	stop()
	if !strings.Contains(b.out.String(), "(web02)") {
		t.Error(b.out)
	}
}

// TestAgesAreWhole: nobody counts parts of a second of what is past.
func TestAgesAreWhole(t *testing.T) {
	at := apitest.Now().Add(-34200 * time.Microsecond)
	st := pair("ALONE/Ready running", "?SECOND/Ready")
	st.Nodes[1].Silent, st.Gone = &at, []api.GoneNode{{Name: "gamma", At: &at}}
	st.Witnesses = []api.WitnessStatus{{Addr: "10.0.0.9:7425", Silent: &at}}
	b := newBench(t, false)
	b.width = func() int { return 0 }
	b.node.Set(st)
	b.run(t.Context(), []string{"status"})
	for _, want := range []string{"(0s ago)", "down for 0s\n", "silent for 0s"} {
		if !strings.Contains(b.out.String(), want) {
			t.Errorf("%q is not said:\n%s", want, b.out)
		}
	}
	if strings.Contains(b.out.String(), "34") {
		t.Error(b.out)
	}
}

// TestVersions: each node's, and what is not known of one.
func TestVersions(t *testing.T) {
	b := newBench(t, false)
	st := pair("PRIM/Ready running", "SECOND/Ready off")
	st.Nodes = append(st.Nodes, api.NodeStatus{Name: "gamma"}, api.NodeStatus{Name: "delta", Version: "0.9"})
	b.node.Set(st)
	b.run(t.Context(), []string{"version"})
	if _, got, _ := strings.Cut(b.out.String(), "\n"); got != `duetd 1.0 on alpha
duetd on beta: not known yet, or a release that does not tell it
duetd on gamma: not known, it is down
duetd 0.9 on delta, when it was last heard
` {
		t.Error(got)
	}
}

// crowd is a cluster at its worst: long names, many modules, a dead host, a frozen VM, notices.
func crowd() api.Status {
	silent := apitest.Now().Add(-26 * time.Hour)
	st := apitest.Sample()
	st.Cluster = "datacentre-frankfurt-east"
	st.Nodes = []api.NodeStatus{{Name: "hypervisor-07.frankfurt", Alive: true},
		{Name: "hypervisor-08.frankfurt", Silent: &silent, Paths: map[string]bool{"storage-network": false, "office": false}},
		{Name: "hv-09", Alive: true, Leaving: true, Paths: map[string]bool{"office": true}}}
	st.Self, st.Witnesses, st.Modules = "hypervisor-07.frankfurt", nil, nil
	for i, state := range [][2]string{{"ALONE/Ready running", "?SECOND/Ready"}, {"PRIM/Transient frozen", "?SECOND/Ready"},
		{"WAIT/NotReady off", "?PRIM/Ready"}, {"STOP/NotReady off", "?STOP/NotReady"}} {
		for j := range 3 {
			m := api.ModuleStatus{Name: fmt.Sprintf("customer-portal-production-%c%d", 'a'+i, j), Kind: "vm"}
			here, there := on(st.Self, state[0]), on("hypervisor-08.frankfurt", state[1])
			here.Why = "writes wait: hypervisor-08.frankfurt does not answer and nobody says that it is off; switch it off, " +
				"then duet prim " + m.Name + " --node " + st.Self
			if j == 1 {
				here.Notices = []api.Notice{{Level: "warning", Code: "x", Text: "the CD drive is empty there"}}
			}
			m.Nodes = []api.NodeState{there, here}
			st.Modules = append(st.Modules, m)
		}
	}
	return st
}

// TestStatusWidths: at 80 columns sentences are broken at words, at 200 they need not be, and in a pipe they are never;
// a dead host is below the living one, and what it was is dim news.
func TestStatusWidths(t *testing.T) {
	for width, name := range map[int]string{80: "status_crowd_80", 200: "status_crowd_200", 0: "status_crowd_pipe",
		20: "status_crowd_pipe"} {
		b := newBench(t, false)
		b.width = func() int { return width }
		b.node.Set(crowd())
		verdict, got, _ := strings.Cut(b.transcript(b.run(t.Context(), []string{"status"})), "Cluster ")
		if width != 20 {
			golden(t, name, got)
		}
		if sentences := strings.Count(got, "writes wait:"); sentences != 9 {
			t.Errorf("%d columns: %d sentences", width, sentences)
		}
		for line := range strings.Lines(verdict) {
			if n := utf8.RuneCountInString(line) - 1; width >= narrowest && n > width {
				t.Errorf("%d columns: %d in the first sentence: %s", width, n, line)
			}
		}
		for line := range strings.Lines(got) {
			sentence := strings.HasPrefix(line, strings.Repeat(" ", 30)) && !strings.Contains(line, "was ")
			if n := utf8.RuneCountInString(strings.TrimSpace(line)); width >= narrowest && sentence && n+31 > width {
				t.Errorf("%d columns: %d+31 in a sentence: %s", width, n, line)
			}
		}
	}
}

// TestWatchEnds: ctrl-C ends a watch with 0, also before there was an answer; what fails at first is an error.
func TestWatchEnds(t *testing.T) {
	for _, line := range []string{"status --watch", "status db --watch", "status --watch --json", "log -f",
		"log db -f --json"} {
		b := newBench(t, false)
		stop := b.background(t, line)
		until(t, "first view", func() bool { return strings.HasSuffix(b.out.String(), "\n") })
		if code := stop(); code != exitOK || b.err.String() != "" {
			t.Errorf("duet %s:\n%s", line, b.transcript(code))
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		b = newBench(t, false)
		if code := b.run(ctx, strings.Fields(line)); code != exitOK || b.out.String()+b.err.String() != "" {
			t.Errorf("duet %s that never began:\n%s", line, b.transcript(code))
		}
		b = newBench(t, false)
		b.node.Fail = func(string) error { return api.ErrConflict }
		if code := b.run(t.Context(), strings.Fields(line)); code != exitError || b.out.String() != "" {
			t.Errorf("duet %s that fails at first:\n%s", line, b.transcript(code))
		}
	}
}

// TestWatchSays: each change is one line in a pipe, whatever it is, and what stays is not told again.
func TestWatchSays(t *testing.T) {
	alarm := api.Notice{Level: "alarm", Code: "x", Text: "copies differ"}
	with := func(st api.Status, change func(*api.Status)) api.Status {
		change(&st)
		return st
	}
	ready := func() api.Status { return pair("PRIM/Ready running", "SECOND/Ready off") }
	for _, c := range []struct {
		now  api.Status
		want []string
	}{
		{pair("PRIM/Transient frozen", "SECOND/Ready off"),
			[]string{"m on alpha: PRIM/Ready vm running → PRIM/Transient vm frozen: so it is"}},
		{pair("PRIM/Ready running", "?SECOND/Ready off"),
			[]string{"node beta: up → down", "m on beta: SECOND/Ready vm off → ? (was SECOND): so it is"}},
		{with(ready(), func(st *api.Status) { st.Nodes[1].Leaving = true }), []string{"node beta: up → leaving"}},
		{with(ready(), func(st *api.Status) { st.Nodes[1].Paths = map[string]bool{"hb1": false} }),
			[]string{"node beta: up → up (hb1 silent)"}},
		{with(ready(), func(st *api.Status) { st.Modules[0].Nodes[0].Why = "it is well" }),
			[]string{"m on alpha: PRIM/Ready vm running: it is well"}},
		{with(ready(), func(st *api.Status) { st.Modules[0].Nodes[1].Notices = []api.Notice{alarm} }),
			[]string{"m on beta: alarm: copies differ"}},
		{with(ready(), func(st *api.Status) { st.Modules[0].Name = "n" }),
			[]string{"n on alpha: PRIM/Ready vm running: so it is", "n on beta: SECOND/Ready vm off: so it is",
				"m on alpha: gone", "m on beta: gone"}},
		{with(ready(), func(st *api.Status) { st.Modules[0].Nodes[0].Epoch, st.Version = 9, "2" }), nil},
	} {
		if got := changes(ready(), c.now); strings.Join(got, "\n") != strings.Join(c.want, "\n") {
			t.Errorf("said %q, want %q", got, c.want)
		}
		if again := changes(c.now, c.now); len(again) > 0 {
			t.Errorf("told again: %q", again)
		}
	}
	old := with(ready(), func(st *api.Status) { st.Modules[0].Nodes[1].Notices = []api.Notice{alarm} })
	if got := changes(old, ready()); len(got) != 1 || got[0] != "m on beta: no longer: copies differ" {
		t.Errorf("a notice that is gone: %q", got)
	}
}

// TestWatchJSONOnChange: with --json there is a document for each change and none while nothing changes or answers.
func TestWatchJSONOnChange(t *testing.T) {
	b := newBench(t, false)
	failing := make(chan bool, 1)
	failed := false
	b.node.Fail = func(string) error {
		select {
		case failed = <-failing:
		default:
		}
		if failed {
			return api.ErrUnreach
		}
		return nil
	}
	stop := b.background(t, "status --watch --json")
	looks := func(n int) {
		now := len(b.node.Asked())
		until(t, "more looks", func() bool { return len(b.node.Asked()) > now+n })
	}
	until(t, "first", func() bool { return strings.Count(b.out.String(), "\n") == 1 })
	looks(3)
	failing <- true
	looks(3)
	failing <- false
	looks(3)
	if code := stop(); code != exitOK || strings.Count(b.out.String(), "\n") != 1 || b.err.String() != "" {
		t.Errorf("%s", b.transcript(code))
	}
}
