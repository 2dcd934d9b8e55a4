package main

import (
	"archive/zip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"duet/console/api"
	"duet/console/api/apitest"
)

// editors gives a command line whose environment has these editors.
func editors(t *testing.T, visual, editor string) *bench {
	t.Helper()
	b := newBench(t, false)
	env := b.env
	b.env = func(k string) string {
		return map[string]string{"VISUAL": visual, "EDITOR": editor}[k] + env(k)
	}
	return b
}

// TestEditorChoice: VISUAL is before EDITOR, an editor may have arguments, one that fails or is not there is named, and
// then nothing is applied.
func TestEditorChoice(t *testing.T) {
	for _, c := range []struct {
		visual, editor, want string
		code                 int
		applied              bool
	}{
		{"sed -i s/3/7/", "false", "web01 has configuration version 4\n", 0, true},
		{"", "sed -i -e s/3/8/ -e s/8/9/", "web01 has configuration version 4\n", 0, true},
		{"true", "false", "nothing has changed\n", 0, false},
		{"touch", "", "nothing has changed\n", 0, false},
		{"", "sh -c 'exit 3'", "duet: sh -c 'exit 3': exit status 3; set EDITOR to your editor\n", 1, false},
		{"", "kill $$;", "duet: kill $$;: signal: terminated; set EDITOR to your editor\n", 1, false},
		{"/nonexistent/editor", "true", "duet: /nonexistent/editor: exit status 127; set EDITOR to your editor\n", 1, false},
	} {
		tmp := t.TempDir()
		t.Setenv("TMPDIR", tmp)
		b := editors(t, c.visual, c.editor)
		code := b.run(t.Context(), []string{"config", "edit", "db"})
		said := b.out.String() + b.err.String()
		applied := slices.ContainsFunc(b.node.Asked(), func(s string) bool { return strings.HasPrefix(s, "check ") })
		if code != c.code || !strings.HasSuffix(said, c.want) || applied != c.applied {
			t.Errorf("VISUAL=%q EDITOR=%q: exit %d, applied %v: %q", c.visual, c.editor, code, applied, said)
		}
		if left, _ := filepath.Glob(tmp + "/*"); code == 0 && len(left) > 0 {
			t.Errorf("VISUAL=%q EDITOR=%q: %q is left", c.visual, c.editor, left)
		}
	}
}

// TestEditRefused: what the daemon refuses is kept for another try, whose way is named.
func TestEditRefused(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	b := editors(t, "", "sed -i s/3/many/")
	b.node.Fail = func(call string) error {
		if strings.HasPrefix(call, "check ") {
			return fmt.Errorf("5: policy.restart.max: a number is wanted, not %q: %w", "many", api.ErrInvalid)
		}
		return nil
	}
	p := b.problem(t, "config edit db")
	said, way, ok := strings.Cut(p.Detail, "; your text is in ")
	path, again, _ := strings.Cut(way, ": mend it and ")
	if p.Status != 400 || !ok || !strings.HasPrefix(said, `5: policy.restart.max: a number is wanted, not "many"`) ||
		again != "`duet config apply "+path+"`" {
		t.Fatalf("%+v", p)
	}
	b.again()
	b.node.Fail = nil
	if code := b.run(t.Context(), []string{"config", "apply", path}); code != exitOK {
		t.Errorf("the way that was named:\n%s", b.transcript(code))
	}
	if asked := b.node.Asked(); !strings.Contains(asked[len(asked)-1], "max: many") {
		t.Errorf("applied %q", asked[len(asked)-1])
	}
}

// TestSetSeveral: several keys become one version; each is said, also one that was so already.
func TestSetSeveral(t *testing.T) {
	for line, want := range map[string]string{
		"policy.restart.max=5 policy.restart.window=3m": "policy.restart.max 3 → 5, policy.restart.window 2m → 3m, version 4",
		"policy.restart.max=5 policy.restart.window=2m": "policy.restart.max 3 → 5, policy.restart.window is 2m already, " +
			"version 4",
	} {
		b := newBench(t, false)
		b.node.YAML = "name: db\nkind: vm\npolicy:\n  restart:\n    max: 3\n    window: 2m\n"
		code := b.run(t.Context(), strings.Fields("config set db "+line))
		applied := slices.DeleteFunc(b.node.Asked(), func(s string) bool { return !strings.HasPrefix(s, "apply to ") })
		if code != exitOK || b.out.String() != "web01: "+want+"\n" || len(applied) != 1 {
			t.Errorf("%s: applied %q\n%s", line, applied, b.transcript(code))
		}
	}
}

// TestEditsSayOfWhat: edit and set say which version they changed, apply takes whatever there is; a text that somebody
// was faster with is not lost.
func TestEditsSayOfWhat(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	for line, want := range map[string]string{"config edit db": "apply to 3",
		"config set db policy.restart.max=4": "apply to 3", "config apply -": "apply to 0"} {
		b := editors(t, "", "sed -i s/3/5/")
		b.in = strings.NewReader("name: db\n")
		b.node.Fail = func(call string) error {
			if strings.HasPrefix(call, "apply") {
				return fmt.Errorf("db is at version 4, by beta: %w", api.ErrConflict)
			}
			return nil
		}
		if p := b.problem(t, line); p.Status != 409 || !slices.Contains(b.node.Asked(), want) {
			t.Errorf("%s: %+v, asked %q", line, p, b.node.Asked())
		}
	}
	if left, _ := filepath.Glob(os.Getenv("TMPDIR") + "/*.yaml"); len(left) != 1 {
		t.Errorf("%q is left of the edit", left)
	}
}

// TestSetKey: a key that is not there, that has keys of its own, or a value that is none changes nothing and is named;
// all else of the text stays as it is.
func TestSetKey(t *testing.T) {
	const text = "name: db\nkind: vm\npolicy:\n  restart:\n    max: %s\n"
	for set, want := range map[string]string{
		"policy.restart.max=0":   "",
		"policy.restart.max=a=b": "",
		"policy.restart.max=":    "write KEY=VALUE, such as policy.restart.max=5",
		"policy.restart.max":     "write KEY=VALUE, such as policy.restart.max=5",
		"policy.restart=5":       "policy.restart has keys of its own: `duet config explain policy.restart` lists them",
		"policy=5":               "policy has keys of its own",
		"policy.restart.maks=5": "there is no key \"policy.restart.maks\", did you mean policy.restart.max? `duet config " +
			"explain` lists them",
		"policy..max=5":            "there is no key \"policy..max\"",
		"=5":                       "there is no key \"\"",
		"policy.restart.max.min=5": "there is no key \"policy.restart.max.min\"",
		"disks[0].path=/x":         "there is no key \"disks[0].path\"",
		"policy.restart.max=[1":    "\"[1\" is not a value",
		"policy.restart.max=\"x":   "is not a value",
	} {
		b := newBench(t, false)
		code := b.run(t.Context(), []string{"config", "set", "db", set})
		applied := ""
		for _, call := range b.node.Asked() {
			if said, ok := strings.CutPrefix(call, "check "); ok {
				applied = said
			}
		}
		if want == "" {
			_, value, _ := strings.Cut(set, "=")
			if code != exitOK || applied != fmt.Sprintf("%q", fmt.Sprintf(text, value)) {
				t.Errorf("%s: applied %s\n%s", set, applied, b.transcript(code))
			}
			continue
		}
		if code == exitOK || applied != "" || !strings.Contains(b.err.String(), want) ||
			strings.Count(b.err.String(), "\n") != 1 {
			t.Errorf("%s: want %q, applied %s\n%s", set, want, applied, b.transcript(code))
		}
	}
}

// endless is a text that does not end.
type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = '#'
	}
	return len(p), nil
}

// broken is an input that cannot be read.
type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, errors.New("input/output error") }

// TestBadInput: what cannot be read, or is too long to be what it should be, is refused before anything is asked.
func TestBadInput(t *testing.T) {
	for _, c := range []struct {
		line, want string
		in         io.Reader
	}{
		{"config check -", "longer than 1 MiB: is it a module's configuration?", endless{}},
		{"config apply -", "read standard input: input/output error", broken{}},
		{"config apply -", "standard input: the configuration is empty", strings.NewReader("")},
		{"config check -", "standard input: the configuration is empty", strings.NewReader("")},
		{"vm protect web --config /nonexistent.yaml", "/nonexistent.yaml does not exist", broken{}},
		{"cluster join 10.0.0.1 --node b --addr 10.0.0.2 --token -", "read token: input/output error", broken{}},
		{"cluster fence set beta --agent x --option p=-", "read secret: input/output error", broken{}},
		{"cluster fence set beta --file /nonexistent.json", "read devices: /nonexistent.json does not exist", broken{}},
		{"cluster fence set beta --file /proc/version", "read devices: invalid character", broken{}},
	} {
		b := newBench(t, false)
		b.in = c.in
		if got := b.one(t, t.Context(), c.line, exitError); !strings.Contains(got, c.want) {
			t.Errorf("%s: %q, want %q", c.line, got, c.want)
		}
		if asked := b.node.Asked(); len(asked) > 0 || len(b.paper.asked) > 0 {
			t.Errorf("%s: asked %q %q", c.line, asked, b.paper.asked)
		}
	}
}

// TestTokenFromInput: a token may come from standard input, without the end of its line, and none at all is a wrong
// command line.
func TestTokenFromInput(t *testing.T) {
	const line = "cluster rejoin 10.0.0.1 --yes --token -"
	for in, want := range map[string]string{"duet1.x.y\n": "Token:duet1.x.y ", " duet1.x.y\r\n\n": "Token:duet1.x.y ",
		"\n": ""} {
		b := newBench(t, true)
		b.in = strings.NewReader(in)
		code := b.run(t.Context(), strings.Fields(line))
		if asked := strings.Join(b.paper.asked, ""); want == "" && (code != exitUsage || asked != "") ||
			want != "" && (code != exitOK || !strings.Contains(asked, want)) {
			t.Errorf("%q:\n%s", in, b.transcript(code))
		}
	}
}

// TestFenceDevices: devices come from flags or from a file, a secret from standard input and never to the terminal.
func TestFenceDevices(t *testing.T) {
	file := filepath.Join(t.TempDir(), "levels.json")
	levels := `[[{"name":"psu1","agent":"fence_apc","options":{"port":"1"},"timeout":"45s"},` +
		`{"name":"psu2","agent":"fence_apc","options":{}}],` +
		`[{"name":"bmc","agent":"fence_ipmilan","options":{}}]]`
	if err := os.WriteFile(file, []byte(levels), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ line, in, asked string }{
		{"--file " + file, "", "fence beta [[{psu1 fence_apc map[port:1] 45s} {psu2 fence_apc map[] }] " +
			"[{bmc fence_ipmilan map[] }]]"},
		{"--agent fence_x --option password=- --option ip=10.0.9.2", "s3cret=x y\r\n",
			"fence beta [[{fence_x fence_x map[ip:10.0.9.2 password:s3cret=x y] }]]"},
		{"--agent fence_x --option a=b=c --option d=", "", "fence beta [[{fence_x fence_x map[a:b=c d:] }]]"},
		{"--agent fence_x", "", "fence beta [[{fence_x fence_x map[] }]]"},
		{"--agent fence_x --timeout 90s", "", "fence beta [[{fence_x fence_x map[] 1m30s}]]"},
	} {
		b := newBench(t, false)
		b.in = strings.NewReader(c.in)
		code := b.run(t.Context(), strings.Fields("cluster fence set beta "+c.line))
		asked := strings.Join(b.node.Asked(), "\n")
		if code != exitOK || asked != c.asked || b.out.String() != "Known. Now try it: duet cluster fence test beta\n" {
			t.Errorf("%s: asked %q, want %q\n%s", c.line, asked, c.asked, b.transcript(code))
		}
	}
	b := newBench(t, false)
	code := b.run(t.Context(), strings.Fields("cluster fence remove beta"))
	if asked := b.node.Asked(); code != exitOK || len(asked) != 1 || asked[0] != "fence beta []" ||
		b.out.String() != "beta has no fence device any more.\n" {
		t.Errorf("asked %q\n%s", asked, b.transcript(code))
	}
	b = behind(t, says(200, "[]"))
	if got := b.transcript(b.run(t.Context(), strings.Fields("cluster fence list"))); got !=
		"No node has a fence device.\n--- exit 0\n" {
		t.Errorf("%s", got)
	}
}

// TestProtectPolicy: what flags say of the policy is its YAML, and no value can be more than a value.
func TestProtectPolicy(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"--arbitration=available", "policy:\n  arbitration: \"available\"\n"},
		{"--primary=alpha", "policy:\n  primary: \"alpha\"\n"},
		{"--arbitration=safe --primary=last", "policy:\n  arbitration: \"safe\"\n  primary: \"last\"\n"},
		{"--arbitration=safe\nfence:\"none", "policy:\n  arbitration: \"safe\\nfence:\\\"none\"\n"},
	} {
		b := newBench(t, false)
		code := b.run(t.Context(), append([]string{"vm", "protect", "web", "--no-wait"}, strings.Split(c.args, " ")...))
		if asked := strings.Join(b.node.Asked(), "\n"); code != exitOK || !strings.Contains(asked, "Config:"+c.want) {
			t.Errorf("%s: asked %q\n%s", c.args, asked, b.transcript(code))
		}
	}
}

// TestTaskEnds: how a task that has ended is told, followed or only looked at.
func TestTaskEnds(t *testing.T) {
	done := api.Task{ID: "t1", Kind: "verify", Module: "db", Done: true}
	failed, well := done, done
	failed.Error, well.Result = "beta has no space left\x1b[2J", "both copies are the same"
	at, old := apitest.Now(), well
	old.Ended = &at
	half := api.Task{ID: "t1", Kind: "verify", Module: "db", Step: "comparing",
		Sync: &api.Sync{Total: 8, Compared: 2, ETA: -1}}
	for _, c := range []struct {
		line, want string
		task       api.Task
	}{
		{"task t1", "verify of db is done\n--- exit 0\n", done},
		{"task t1", "both copies are the same\n--- exit 0\n", well},
		{"task t1", "--- stderr\nduet: verify of db: beta has no space left?[2J\n--- exit 1\n", failed},
		{"task t1 --no-wait", "failed: beta has no space left?[2J\n--- exit 0\n", failed},
		{"task t1 --no-wait", "both copies are the same\n--- exit 0\n", well},
		{"task t1 --no-wait", "done\n--- exit 0\n", done},
		{"task t1", "ended 15:09: both copies are the same\n--- exit 0\n", old}, // what it says was so then
		{"task t1 --no-wait", "ended 15:09: both copies are the same\n--- exit 0\n", old},
		{"task t1 --no-wait", "comparing 25% (2 B of 8 B)\n--- exit 0\n", half},
		{"task t2", "--- stderr\nduet: task t2: not found: finished tasks are kept for an hour\n--- exit 1\n", done},
		{"volume verify db/vda --no-wait", "t1\n--- stderr\nverify of db has begun: `duet task t1` follows it\n" +
			"--- exit 0\n", half},
	} {
		b := newBench(t, false)
		b.node.Steps = []api.Task{c.task}
		if got := b.transcript(b.run(t.Context(), strings.Fields(c.line))); got != c.want {
			t.Errorf("duet %s: %q, want %q", c.line, got, c.want)
		}
	}
}

// TestFollowOutlivesRestart: work goes on while its node is away for less than half a minute; longer is an error that
// names the work.
func TestFollowOutlivesRestart(t *testing.T) {
	for away, code := range map[int]int{2: exitOK, 1000: exitError} {
		looks := 0
		b := behind(t, func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.HasPrefix(r.URL.Path, "/v1/tasks/") {
				return false
			}
			if looks++; looks == 1 || looks > away+1 {
				return false
			}
			return cut(w, r)
		})
		b.clock(time.Second)
		got := b.run(t.Context(), strings.Fields("volume verify db/vda"))
		if got != code || !strings.Contains(b.out.String(), "the node does not answer, waiting for it") {
			t.Errorf("away for %d looks:\n%s", away, b.transcript(got))
		}
		const want = "duet: follow protect of web01 (task t1): duetd does not answer on "
		if code == exitError && !strings.HasPrefix(b.err.String(), want) {
			t.Errorf("away for good: %q", b.err.String())
		}
	}
}

// TestDivergedWords: what is not known is said to be unknown, a comparison that took too long says at least, and of
// many ranges the first are shown.
func TestDivergedWords(t *testing.T) {
	d := api.Difference{Version: api.Version{ID: "v1", Module: "web01", Target: "vda", Node: "beta", Size: 1 << 30,
		Loser: api.Side{Node: "beta"}, Winner: api.Side{Node: "alpha"}, Until: apitest.Now(), Problem: "its image is gone"},
		Bytes: 1 << 20, Partly: true}
	for i := range int64(23) {
		d.Ranges = append(d.Ranges, api.Range{Offset: i << 20, Length: 1 << 16})
	}
	b := behind(t, func(w http.ResponseWriter, r *http.Request) bool {
		switch r.URL.Path {
		case "/v1/versions":
			_ = json.NewEncoder(w).Encode([]api.Version{d.Version})
		case "/v1/versions/v1":
			_ = json.NewEncoder(w).Encode(d)
		}
		return strings.HasPrefix(r.URL.Path, "/v1/versions")
	})
	code := b.run(t.Context(), strings.Fields("volume diverged web01"))
	got := b.out.String()
	for _, want := range []string{"web01/vda: version v1, kept on beta until 2026-03-14\n",
		"  lost   beta: first write unknown, last write unknown\n", "  won    alpha: first write unknown, last",
		"  differs from the volume now in at least 1 MiB of 1 GiB\n", "    64 KiB at byte 19922944\n",
		"    and 3 more ranges: --json shows them\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("it does not say %q", want)
		}
	}
	if code != exitOK || strings.Count(got, "64 KiB at byte") != rangesShown {
		t.Errorf("%s", b.transcript(code))
	}
	b.again()
	if b.run(t.Context(), strings.Fields("volume diverged")); !strings.HasSuffix(b.out.String(), "  its image is gone\n") {
		t.Errorf("the problem is not shown:\n%s", b.out.String())
	}
	for _, line := range []string{"volume diverged", "volume diverged m"} {
		for state, want := range map[string]string{
			"SECOND/Ready": "No version is kept: no split brain in the last week.\n--- exit 0\n",
			// Where a node is away the versions may lie there.
			"?SECOND/Ready": "No version is kept on the nodes that answer.\n--- stderr\nproblem on beta: it does not answer: " +
				"versions that it keeps are not listed\n  look again when it is up\n--- exit 0\n",
		} {
			b := behind(t, func(w http.ResponseWriter, r *http.Request) bool {
				return r.URL.Path == "/v1/versions" && says(200, "[]")(w, r)
			})
			b.node.Set(pair("PRIM/Ready", state))
			if got := b.transcript(b.run(t.Context(), strings.Fields(line))); got != want {
				t.Errorf("duet %s:\n%s", line, got)
			}
		}
	}
}

// TestRemovedNode: what cannot be taken back from a removed node is said, with what to do about it.
func TestRemovedNode(t *testing.T) {
	b := behind(t, func(w http.ResponseWriter, r *http.Request) bool {
		return r.Method == http.MethodDelete &&
			says(200, `{"node":"gamma","modules":[],"keeps":"it has the key: make new ones"}`)(w, r)
	})
	const want = "gamma is no member any more.\nit has the key: make new ones\n--- exit 0\n"
	if got := b.transcript(b.run(t.Context(), strings.Fields("cluster remove gamma --yes"))); got != want {
		t.Errorf("%s", got)
	}
}

// TestWitnessLeft: after one witness is removed it is said who votes, or what follows if nobody does.
func TestWitnessLeft(t *testing.T) {
	for _, c := range []struct {
		left         []api.WitnessStatus
		remove, list string
	}{
		{[]api.WitnessStatus{{Addr: "b:7425", Alive: true}}, "The witness b:7425 votes.", "b:7425   voter\n"},
		{[]api.WitnessStatus{{Addr: "b:7425", Spare: true}}, "There is no witness any more: ", "b:7425   spare, silent\n"},
		{nil, "There is no witness any more: arbitration \"safe\" waits", "There is no witness: arbitration \"safe\" waits"},
	} {
		b := newBench(t, false)
		st := apitest.Sample()
		st.Witnesses = c.left
		b.node.Set(st)
		code := b.run(t.Context(), strings.Fields("cluster witness remove ::1"))
		if asked := b.node.Asked(); code != exitOK || asked[1] != "remove witness [::1]:7425" ||
			!strings.HasPrefix(b.out.String(), c.remove) {
			t.Errorf("%v: asked %q\n%s", c.left, asked, b.transcript(code))
		}
		b.again()
		code = b.run(t.Context(), strings.Fields("cluster witness list"))
		if code != exitOK || !strings.Contains(b.out.String(), c.list) {
			t.Errorf("%v:\n%s", c.left, b.transcript(code))
		}
	}
}

// TestSupportGarbage: a zip that is none is an error that names the file.
func TestSupportGarbage(t *testing.T) {
	b := behind(t, func(w http.ResponseWriter, r *http.Request) bool {
		return r.URL.Path == "/v1/support" && says(200, "<html>")(w, r)
	})
	path := filepath.Join(t.TempDir(), "x.zip")
	got := b.one(t, t.Context(), "support -o "+path, exitError)
	if got != "read zip "+path+": "+zip.ErrFormat.Error() {
		t.Errorf("%q", got)
	}
}

// full is a setup on a disk that is full.
type full struct{ Setup }

var errFull = errors.New("write pki/node.key: no space left on device\nnothing was made")

// Leave fails.
func (full) Leave(string, time.Time) (string, error) { return "", errFull }

// TestSetupFails: what fails on the node itself is one line, however many the error has.
func TestSetupFails(t *testing.T) {
	b := newBench(t, true)
	b.setup = full{b.setup}
	const want = "write pki/node.key: no space left on device; nothing was made"
	if got := b.one(t, t.Context(), "cluster leave --yes", exitError); got != want {
		t.Errorf("%q", got)
	}
}
