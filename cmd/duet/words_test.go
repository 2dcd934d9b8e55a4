package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"duet/cluster/pki"
	"duet/console/api"
	"duet/console/api/apitest"
	"duet/docs"
)

// leaves are the commands that do something, by their whole names.
func leaves(c *cobra.Command) []string {
	var out []string
	for _, sub := range c.Commands() {
		if sub.HasSubCommands() {
			out = append(out, leaves(sub)...)
		} else {
			out = append(out, strings.TrimPrefix(sub.CommandPath(), "duet "))
		}
	}
	return out
}

// TestEveryJSON: every command that there is writes one JSON document with --json and nothing beside it, and where its
// daemon refuses, one problem document and nothing beside that.
func TestEveryJSON(t *testing.T) {
	conf := filepath.Join(t.TempDir(), "web01.yaml")
	if err := os.WriteFile(conf, []byte("name: web01\nkind: vm\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	app := filepath.Join(t.TempDir(), "pg.yaml")
	if err := os.WriteFile(app, []byte("name: pg\nkind: mirror\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	const here = "here" // it does not ask the daemon, or does without
	lines := map[string][2]string{
		"status": {"status"}, "log": {"log db"}, "task": {"task t1", here}, "version": {"version", here},
		"explain": {"explain WAIT", here}, "doctor": {"doctor"}, "metrics config": {"metrics config"},
		"support": {"support -o " + t.TempDir() + "/x.zip"},
		"start":   {"start db"}, "stop": {"stop db"}, "restart": {"restart db"}, "swap": {"swap db"},
		"prim": {"prim db --node beta --yes"}, "second": {"second db --node beta"},
		"vm list": {"vm list"}, "vm protect": {"vm protect web"}, "vm release": {"vm release db"},
		"module install": {"module install " + app + " --size 10G"}, "module uninstall": {"module uninstall db"},
		"vm return":   {"vm return db"},
		"volume list": {"volume list"}, "volume verify": {"volume verify db/vda"},
		"volume diverged": {"volume diverged web01"}, "volume export": {"volume export v1 /x --no-wait"},
		"volume drop": {"volume drop v1"}, "config show": {"config show db"}, "config apply": {"config apply " + conf},
		"config check": {"config check " + conf},
		"config set":   {"config set db policy.restart.max=5"}, "config edit": {"config edit db"},
		"config explain": {"config explain policy", here},
		"cluster status": {"cluster status"}, "cluster token": {"cluster token"},
		"cluster remove": {"cluster remove beta --yes"},
		"cluster init":   {"cluster init --name o --node a --addr 10.0.0.1", here},
		"cluster join":   {"cluster join 10.0.0.1 --node b --addr 10.0.0.2 --token duet1.x.y", here},
		"cluster leave":  {"cluster leave --yes", here}, "cluster rejoin": {"cluster rejoin 10.0.0.1 --token x --yes", here},
		"cluster witness add":    {"cluster witness add 10.0.0.9 --token duetw1.x.y"},
		"cluster witness remove": {"cluster witness remove"}, "cluster witness list": {"cluster witness list"},
		"cluster fence list": {"cluster fence list"}, "cluster fence test": {"cluster fence test beta"},
		"cluster fence set":    {"cluster fence set beta --agent fence_x"},
		"cluster fence remove": {"cluster fence remove beta"},
		"cluster ping list":    {"cluster ping list"}, "cluster ping set": {"cluster ping set 10.0.0.254"},
		"cluster ping remove": {"cluster ping remove"},
	}
	for _, name := range leaves(newBench(t, true).root()) {
		c, known := lines[name]
		if !known {
			t.Errorf("duet %s is not tried here", name)
			continue
		}
		b := newBench(t, strings.HasPrefix(name, "cluster leave") || name == "cluster rejoin")
		env := b.env
		b.env = func(k string) string { return map[string]string{"EDITOR": "true"}[k] + env(k) }
		b.clock(time.Second)
		code := b.run(t.Context(), append(strings.Fields(c[0]), "--json"))
		said := b.err.String()
		if name == "volume diverged" && onlyJSON(said) { // that gamma is away
			said = ""
		}
		if said != "" || !json.Valid([]byte(b.out.String())) ||
			code != 0 && name != "status" && name != "cluster status" {
			t.Errorf("duet %s --json:\n%s", c[0], b.transcript(code))
		}
		if c[1] == here {
			continue
		}
		b.again()
		b.node.Fail = func(string) error { return fmt.Errorf("beta is being renewed: %w", api.ErrConflict) }
		if p := b.problem(t, strings.Replace(c[0], "x.zip", "y.zip", 1)); p.Status != 409 || b.out.String() != "" ||
			!strings.HasSuffix(p.Detail, "beta is being renewed: "+api.ErrConflict.Error()) {
			t.Errorf("duet %s, refused: %+v\n%s", c[0], p, b.out.String())
		}
	}
}

// TestExplainEveryWord: each word of the glossary, each word beside it and each state has an explanation of its own,
// in whatever case it is typed, and the list names them all once, in order.
func TestExplainEveryWord(t *testing.T) {
	b := newBench(t, true)
	if code := b.run(t.Context(), []string{"explain"}); code != exitOK {
		t.Fatal(b.transcript(code))
	}
	list := strings.Split(strings.TrimSuffix(b.out.String(), "\n"), "\n")
	if !slices.IsSorted(list) || len(slices.Compact(slices.Clone(list))) != len(list) {
		t.Errorf("the list: %q", list)
	}
	text := map[string]string{}
	for _, w := range docs.Words() {
		text[w.Name] = w.Text
	}
	for state, is := range states {
		for name := range text {
			if strings.EqualFold(name, state) {
				text[name] = is // a state is what an admin sees
			}
		}
		text[state] = is
	}
	if len(list) != len(text) || len(text) < 70 {
		t.Errorf("%d words in the list, %d have an explanation", len(list), len(text))
	}
	for _, word := range list {
		for _, typed := range []string{word, strings.ToUpper(word)} {
			b.again()
			code := b.run(t.Context(), []string{"explain", typed})
			if want := typed + ": " + text[word] + "\n"; code != exitOK || text[word] == "" ||
				!strings.HasPrefix(b.out.String(), want) {
				t.Errorf("explain %q: want %q\n%s", typed, want, b.transcript(code))
			}
		}
	}
}

// TestExplainTroubles: whatever the page of troubles begins with a state has is found by that state.
func TestExplainTroubles(t *testing.T) {
	b := newBench(t, true)
	found := 0
	for _, trouble := range docs.Troubles() {
		first, _, _ := strings.Cut(trouble.See, " ")
		state := strings.TrimSuffix(first, ":")
		if states[state] == "" {
			continue
		}
		found++
		b.again()
		code := b.run(t.Context(), []string{"explain", strings.ToLower(state), "--json"})
		var e explained
		if err := json.Unmarshal([]byte(b.out.String()), &e); err != nil || code != exitOK ||
			!slices.Contains(e.Troubles, trouble) || e.Text != states[state] {
			t.Errorf("explain %s: %v, without %q:\n%s", state, err, trouble.See, b.out.String())
		}
	}
	if found < 8 {
		t.Errorf("%d rows begin with a state", found)
	}
}

// TestExplainUnknown: what has no explanation is named, and where those are that have one.
func TestExplainUnknown(t *testing.T) {
	for _, c := range []struct{ words, want string }{
		{"explain|", `"" has no explanation: ` + "`duet explain` lists the words that have one, `duet config explain` the " +
			"keys of a module"},
		{"explain|epoc", `"epoc" has no explanation`},
		{"explain|SPLIT\x1b[2J", `"SPLIT\x1b[2J" has no explanation`},
		{"explain|policy.proof", "`duet config explain` the keys of a module"},
		{"config|explain|policy.", `there is no key "policy.", did you mean policy? ` + "`duet config explain` lists them"},
		{"config|explain|nosuch", `there is no key "nosuch": ` + "`duet config explain` lists them"},
	} {
		b := newBench(t, true)
		code := b.run(t.Context(), strings.Split(c.words, "|"))
		if code != exitError || !strings.Contains(b.err.String(), c.want) || strings.Count(b.err.String(), "\n") != 1 {
			t.Errorf("%q: want %q\n%s", c.words, c.want, b.transcript(code))
		}
	}
}

// TestExplainEveryKey: each key of a module is explained by its name, with those below it and none beside it.
func TestExplainEveryKey(t *testing.T) {
	b := newBench(t, true)
	all := keysUnder("")
	if len(all) < 20 {
		t.Errorf("%d keys", len(all))
	}
	for _, key := range all {
		b.again()
		code := b.run(t.Context(), []string{"config", "explain", key.Path})
		lines := strings.Split(strings.TrimSuffix(b.out.String(), "\n"), "\n")
		if code != exitOK || len(lines) < 2 || key.Text == "" || !strings.Contains(b.out.String(), clean(key.Text)) {
			t.Errorf("%s:\n%s", key.Path, b.transcript(code))
		}
		for _, l := range lines[1:] {
			rest, ok := strings.CutPrefix(l, key.Path)
			if !ok || !strings.ContainsAny(rest[:1], " .[") {
				t.Errorf("%s is explained by %q", key.Path, l)
			}
		}
	}
}

// TestCompleteNames: what a shell is offered at each place, and nothing where no name belongs.
func TestCompleteNames(t *testing.T) {
	for line, want := range map[string]string{
		"vm protect ":            "build\n:4\n", // the others are protected
		"vm protect p":           ":4\n",
		"vm release d":           "db\n:4\n",
		"vm return ":             "web01\ndb\nold\n:4\n",
		"cluster remove ":        "alpha\nbeta\ngamma\n:4\n",
		"cluster remove beta ":   ":4\n",
		"config show o":          "old\n:4\n",
		"config set db ":         ":4\n",
		"config edit ":           "web01\ndb\nold\n:4\n",
		"log ":                   "web01\ndb\nold\n:4\n",
		"volume diverged w":      "web01\n:4\n",
		"volume list x":          ":4\n",
		"volume verify ":         "web01/vda\ndb/vda\n:4\n",
		"status --node a":        "alpha\n:4\n",
		"volume drop ":           ":4\n",
		"cluster join ":          ":4\n",
		"cluster witness add ":   ":4\n",
		"config explain ":        ":4\n",
		"doctor ":                ":4\n",
		"vm protect build ":      ":4\n",
		"volume verify db/vda ":  ":4\n",
		"vm protect --peer zeta": ":4\n",
	} {
		b := newBench(t, false)
		code := b.run(t.Context(), append([]string{"__complete"}, strings.Split(line, " ")...))
		if code != exitOK || b.out.String() != want {
			t.Errorf("complete %q: %q, want %q", line, b.out.String(), want)
		}
	}
}

// TestCompleteIsQuiet: a shell gets neither an error nor a wait, whatever the daemon does, and no codes for the
// terminal in a name.
func TestCompleteIsQuiet(t *testing.T) {
	hang := func(_ http.ResponseWriter, r *http.Request) bool {
		<-r.Context().Done()
		return true
	}
	for what, f := range map[string]func(http.ResponseWriter, *http.Request) bool{"garbage": says(200, "<html>"),
		"an error": says(500, ""), "half an answer": cut, "a stranger": says(404, "not here"), "none": hang} {
		b := behind(t, f)
		began := time.Now()
		code := b.run(t.Context(), []string{"__complete", "stop", ""})
		if took := time.Since(began); code != exitOK || b.out.String() != ":4\n" || took > 3*completeTime {
			t.Errorf("%s, after %v:\n%s", what, took, b.transcript(code))
		}
		if said := strings.TrimPrefix(b.err.String(), "Completion ended with directive: "); strings.Contains(said, "duet:") {
			t.Errorf("%s: %q", what, said)
		}
	}
	b := newBench(t, false)
	st := apitest.Sample()
	st.Modules[0].Name = "a\x1b[2J\nb"
	b.node.Set(st)
	if b.run(t.Context(), []string{"__complete", "stop", "a"}); b.out.String() != "a?[2J b\n:4\n" {
		t.Errorf("a hostile name: %q", b.out.String())
	}
}

// TestSince: how the beginning of a log may be written, what is shown from there on, and what is no time.
func TestSince(t *testing.T) {
	for since, want := range map[string]int{ // the transitions are of 15:07:26 and 15:08:26, now is 15:09:26
		"": 2, "3m": 2, "2m": 2, "119s": 1, "1m": 1, "59.9s": 0, "1ns": 0, "8760h": 2, "1h30m": 2,
		"2026-03-14": 2, "2026-03-15": 0, "2026-03-14 15:08": 1, "2026-03-14 15:07:26": 2, "2026-03-14 15:07:27": 1,
		"2026-03-14T15:08:26Z": 1, "2026-03-14T16:08:26+01:00": 1, "2026-03-14T15:08:26-01:00": 0, "2099-01-01": 0,
		"0s": -1, "-5m": -1, "2d": 2, "15:08": -1, "1h ago": -1, " 2h": -1, "2026-02-30": -1, "now": -1, "2": -1,
		"1d": 2, "1d12h": 2, "0d2m": 2, "0d1m": 1, "0d": -1, "d": -1, "-1d": -1, "1.5d": -1, "1d ago": -1, "12h1d": -1,
		"99999d": -1,
	} {
		b := newBench(t, false)
		code := b.run(t.Context(), []string{"log", "db", "--json", "--since=" + since})
		if want < 0 {
			said := b.err.String()
			if code != exitUsage || b.out.String() != "" || !strings.Contains(said, "write a duration as 2h") ||
				!json.Valid([]byte(said)) {
				t.Errorf("--since %q:\n%s", since, b.transcript(code))
			}
			continue
		}
		var got []api.LogEntry
		if err := json.Unmarshal([]byte(b.out.String()), &got); err != nil || code != exitOK || len(got) != want ||
			got == nil {
			t.Errorf("--since %q: %v, %d transitions, want %d\n%s", since, err, len(got), want, b.transcript(code))
		}
	}
}

// story is a log that grows.
type story struct {
	mu     sync.Mutex
	told   []api.LogEntry
	broken bool
	looks  int
}

func (s *story) answer(w http.ResponseWriter, r *http.Request) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !strings.HasSuffix(r.URL.Path, "/log") {
		return false
	}
	s.looks++
	if s.broken {
		w.WriteHeader(http.StatusInternalServerError)
		return true
	}
	_ = json.NewEncoder(w).Encode(s.told)
	return true
}

// goes changes the story and waits until it was looked at twice.
func (s *story) goes(t *testing.T, on func()) {
	t.Helper()
	s.mu.Lock()
	on()
	from := s.looks
	s.mu.Unlock()
	until(t, "looks", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.looks > from+2
	})
}

// TestLogFollow: a line for each new transition, once, from --since on; a daemon that is away for a while is told of
// once, and ctrl-C is no error.
func TestLogFollow(t *testing.T) {
	for _, args := range []string{"", "--json"} {
		entry := func(before time.Duration, to string) api.LogEntry {
			return api.LogEntry{Time: apitest.Now().Add(-before), Node: "beta", Module: "db", From: "WAIT/NotReady", To: to,
				On: "x", Why: "because"}
		}
		s := &story{told: []api.LogEntry{entry(3*time.Hour, "PRIM/Ready"), entry(time.Hour, "ALONE/Ready")}}
		b := behind(t, s.answer)
		stop := b.background(t, "log db -f --since 2h "+args)
		s.goes(t, func() {})
		s.goes(t, func() { s.broken = true })
		s.goes(t, func() { s.broken = false })
		s.goes(t, func() { s.broken = true })
		s.goes(t, func() { s.broken = false })
		s.goes(t, func() { // at the same time, and of the time before --since
			s.told = append(s.told, entry(time.Minute, "SECOND/Transient"), entry(time.Minute, "SECOND/Ready"),
				entry(4*time.Hour, "STOP/NotReady"))
		})
		code := stop()
		want := "2026-03-14 14:09:26.000 db on beta: WAIT/NotReady → ALONE/Ready: because\n" +
			"2026-03-14 15:08:26.000 db on beta: WAIT/NotReady → SECOND/Transient: because\n" +
			"2026-03-14 15:08:26.000 db on beta: WAIT/NotReady → SECOND/Ready: because\n"
		got := b.out.String()
		if args != "" {
			var text strings.Builder
			for d := json.NewDecoder(strings.NewReader(got)); d.More(); {
				var e api.LogEntry
				if err := d.Decode(&e); err != nil {
					t.Fatal(err)
				}
				fmt.Fprintf(&text, "%s db on beta: %s → %s: because\n", e.Time.Format("2006-01-02 15:04:05.000"), e.From, e.To)
			}
			if strings.Count(got, "\n") != 3 {
				t.Errorf("not one document a line:\n%s", got)
			}
			got = text.String()
		}
		if code != exitOK || got != want {
			t.Errorf("%q:\n%s", args, b.transcript(code))
		}
		if args != "" {
			continue
		}
		if n := strings.Count(b.err.String(), "500 Internal Server Error"); n != 2 ||
			strings.Count(b.err.String(), "\n") != 2 {
			t.Errorf("two times away are told %d times:\n%s", n, b.err.String())
		}
	}
}

// TestLogNewest: -n is of all modules together, the newest last, and a module without transitions is no error.
func TestLogNewest(t *testing.T) {
	b := newBench(t, false)
	code := b.run(t.Context(), strings.Fields("log -n 4 --json"))
	var got []api.LogEntry
	if err := json.Unmarshal([]byte(b.out.String()), &got); err != nil || code != exitOK || len(got) != 4 {
		t.Fatalf("%v, %d transitions:\n%s", err, len(got), b.transcript(code))
	}
	if !slices.IsSortedFunc(got, func(a, b api.LogEntry) int { return a.Time.Compare(b.Time) }) ||
		got[0].To != "ALONE/Ready" || got[3].To != "SECOND/Transient" {
		t.Errorf("%+v", got)
	}
	b = behind(t, func(w http.ResponseWriter, r *http.Request) bool {
		return strings.HasSuffix(r.URL.Path, "/log") && says(200, "[]")(w, r)
	})
	if got := b.transcript(b.run(t.Context(), []string{"log", "db"})); got != "TIME  NODE  FROM  TO  WHY\n--- exit 0\n" {
		t.Errorf("nothing has happened:\n%s", got)
	}
}

// TestMeantWord: a slip of the fingers is understood where a name is refused: of a command, a module, a node or a key.
func TestMeantWord(t *testing.T) {
	for line, want := range map[string]string{
		"stauts":                             `there is no "stauts", did you mean status?`,
		"cluster inti":                       `there is no "inti", did you mean init?`,
		"status web1":                        "module web1: not found, did you mean web01? There are web01, db, old",
		"log web1":                           "did you mean web01?",
		"swap web1":                          "did you mean web01?",
		"status --node alhpa":                "node alhpa: not found, did you mean alpha? There are alpha, beta, gamma",
		"explain epohc":                      "did you mean epoch?",
		"config set db restart.max=5":        `there is no key "restart.max", did you mean policy.restart.max? `,
		"config set db policy.restrat.max=5": `there is no key "policy.restrat.max", did you mean policy.restart.max? `,
		"config explain restart":             "did you mean policy.restart? ",
		"config explain window":              "did you mean policy.restart.window? ",
		"config set db policy.restart.max 5": "write policy.restart.max=5 in one word: ",
	} {
		b := newBench(t, false)
		code := b.run(t.Context(), strings.Fields(line))
		if code == exitOK || !strings.Contains(b.err.String(), want) {
			t.Errorf("%s: want %q\n%s", line, want, b.transcript(code))
		}
	}
}

// TestFlagsAreNamed: of a policy that was made of flags there is no text whose lines could be told.
func TestFlagsAreNamed(t *testing.T) {
	for _, line := range []string{"vm protect web --arbitration maybe", "vm protect web --arbitration maybe --check"} {
		b := newBench(t, false)
		b.node.Fail = func(call string) error {
			if strings.Contains(call, "protect") {
				return fmt.Errorf("%w: faulty configuration: config:2: policy.arbitration: \"maybe\" is not one of safe, available",
					api.ErrInvalid)
			}
			return nil
		}
		code := b.run(t.Context(), strings.Fields(line))
		const want = "invalid: faulty configuration: --arbitration: \"maybe\" is not one of safe, available\n"
		if code != exitError || !strings.HasSuffix(b.err.String(), want) {
			t.Errorf("%s: %s", line, b.transcript(code))
		}
	}
}

// TestMemberAlready: who is a member is told so first, whatever else the command lacks, and both ways on.
func TestMemberAlready(t *testing.T) {
	for _, line := range []string{"cluster init", "cluster join 10.0.0.1", "cluster init --name office --node alpha " +
		"--addr 10.0.0.1"} {
		b := newBench(t, true)
		b.paper.member = pki.ErrExists
		code := b.run(t.Context(), strings.Fields(line))
		if code != exitError || !strings.HasPrefix(b.err.String(), "duet: "+pki.ErrExists.Error()) || len(b.paper.asked) > 0 {
			t.Errorf("%s: %s", line, b.transcript(code))
		}
	}
}

// TestQuietSaysWhat: help of -q is true of what is printed.
func TestQuietSaysWhat(t *testing.T) {
	b := newBench(t, false)
	code := b.run(t.Context(), strings.Fields("status --help"))
	for _, want := range []string{"nothing is printed but an error, on standard error", "print nothing but errors"} {
		if !strings.Contains(b.out.String(), want) {
			t.Errorf("help does not say %q: %s", want, b.transcript(code))
		}
	}
}

// TestExplainRemoved: the word by which status says that this node is no member has an explanation.
func TestExplainRemoved(t *testing.T) {
	b := newBench(t, true)
	code := b.run(t.Context(), strings.Fields("explain removed"))
	if code != exitOK || !strings.Contains(b.out.String(), "duet cluster rejoin") {
		t.Errorf("%s", b.transcript(code))
	}
}

// TestWitnessAgain: a witness that is added again votes already, and its token is not used.
func TestWitnessAgain(t *testing.T) {
	for addr, want := range map[string]string{
		"10.0.0.9": "The witness 10.0.0.9:7425 votes already: nothing has changed, and the token was not used.\n",
		"10.0.0.7": "The witness 10.0.0.7:7425 votes from now on, in place of",
	} {
		b := newBench(t, false)
		code := b.run(t.Context(), []string{"cluster", "witness", "add", addr, "--token", "duetw1.x.y"})
		if code != exitOK || !strings.HasPrefix(b.out.String(), want) {
			t.Errorf("%s: %s", addr, b.transcript(code))
		}
	}
}

// TestLastWitnessIsAsked: before the only voter goes it is asked, with what decides without it; a spare, or a voter
// that one stands in for, goes without a question.
func TestLastWitnessIsAsked(t *testing.T) {
	one := apitest.Sample()
	one.Witnesses = one.Witnesses[:1]
	for _, c := range []struct {
		line, in string
		st       api.Status
		code     int
		removed  bool
	}{
		{"cluster witness remove", "yes\n", one, exitOK, true},
		{"cluster witness remove", "no\n", one, exitError, false},
		{"cluster witness remove 10.0.0.9:7425", "no\n", one, exitError, false},
		{"cluster witness remove --yes", "", one, exitOK, true},
		{"cluster witness remove 10.0.0.8", "", apitest.Sample(), exitOK, true},
		{"cluster witness remove 10.0.0.9", "", apitest.Sample(), exitOK, true},
	} {
		b := newBench(t, false)
		b.node.Set(c.st)
		b.in, b.inTTY = strings.NewReader(c.in), c.in != ""
		code := b.run(t.Context(), strings.Fields(c.line))
		asked := strings.Contains(b.err.String(), "10.0.0.9:7425 is the only witness")
		facts := strings.Contains(b.err.String(), "the fence devices of beta") &&
			strings.Contains(b.err.String(), "\"safe\" stand still") && strings.Contains(b.err.String(), "web01, db, old")
		removed := slices.ContainsFunc(b.node.Asked(), func(s string) bool { return strings.HasPrefix(s, "remove witness") })
		if code != c.code || removed != c.removed || asked != (c.in != "") || asked && !facts {
			t.Errorf("%s < %q: %s", c.line, c.in, b.transcript(code))
		}
	}
}
