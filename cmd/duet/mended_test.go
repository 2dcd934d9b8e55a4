package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"duet/cluster/support"
	"duet/console/api"
	"duet/console/api/apitest"
)

// onlyJSON reports that a text is JSON documents and nothing beside them.
func onlyJSON(text string) bool {
	d := json.NewDecoder(strings.NewReader(text))
	for d.More() {
		var v map[string]any
		if d.Decode(&v) != nil {
			return false
		}
	}
	return text != ""
}

// TestConfirmJSON: with --json what a confirmation is wanted for is a problem document and nothing beside it.
func TestConfirmJSON(t *testing.T) {
	for _, line := range []string{"prim web01 --node beta --json", "cluster remove beta --json"} {
		b := newBench(t, false)
		b.node.Set(dead())
		code := b.run(t.Context(), strings.Fields(line))
		if code != exitError || !onlyJSON(b.err.String()) || !strings.Contains(b.err.String(), `"status": 428`) {
			t.Errorf("%s:\n%s", line, b.transcript(code))
		}
	}
	b := newBench(t, true)
	if code := b.run(t.Context(), strings.Fields("cluster leave --json")); !onlyJSON(b.err.String()) {
		t.Errorf("leave:\n%s", b.transcript(code))
	}
}

// TestLogFollowJSON: with --json a daemon that is away while a log is followed is told as a problem document.
func TestLogFollowJSON(t *testing.T) {
	s := &story{told: []api.LogEntry{}}
	b := behind(t, s.answer)
	stop := b.background(t, "log db -f --json")
	s.goes(t, func() {})
	s.goes(t, func() { s.broken = true })
	stop()
	if !onlyJSON(b.err.String()) {
		t.Errorf("%s", b.err.String())
	}
}

// TestCheckJSON: a good file with --json is a JSON document.
func TestCheckJSON(t *testing.T) {
	b := newBench(t, false)
	b.in = strings.NewReader("name: x\n")
	if code := b.run(t.Context(), strings.Fields("config check - --json")); !json.Valid([]byte(b.out.String())) {
		t.Errorf("%s", b.transcript(code))
	}
}

// TestUsageJSON: --json counts wherever it stands in the line.
func TestUsageJSON(t *testing.T) {
	b := newBench(t, false)
	if code := b.run(t.Context(), strings.Fields("stop db --now --json")); !onlyJSON(b.err.String()) {
		t.Errorf("%s", b.transcript(code))
	}
}

// TestInterruptedJSON: ctrl-C is told as 499 by everything that is followed.
func TestInterruptedJSON(t *testing.T) {
	for _, line := range []string{"swap db --json", "vm protect web --json"} {
		b := newBench(t, false)
		b.node.Deaf, b.node.Steps = true, b.node.Steps[:1]
		stop := b.background(t, line)
		until(t, "looks", func() bool {
			return len(b.node.Asked()) > 3 || strings.Contains(line, "protect") && len(b.node.Asked()) > 1
		})
		stop()
		var p struct{ Status int }
		if err := json.Unmarshal([]byte(b.err.String()), &p); err != nil || p.Status != statusInterrupted {
			t.Errorf("%s: %v, %s", line, err, b.err.String())
		}
	}
}

// TestLeaveWhileItRuns: a daemon that answers with an error runs, and its node must not leave under it.
func TestLeaveWhileItRuns(t *testing.T) {
	for _, line := range []string{"cluster leave --yes", "cluster rejoin 10.0.0.1 --token duet1.x.y --yes"} {
		b := newBench(t, false)
		b.node.Fail = func(string) error { return errors.New("the store is slow") }
		code := b.run(t.Context(), strings.Fields(line))
		if code == exitOK || len(b.paper.asked) > 0 {
			t.Errorf("%s:\n%s", line, b.transcript(code))
		}
	}
}

// TestSupportCut: a connection that is lost in the middle leaves nothing of its half in the zip that is made
// without the daemon.
func TestSupportCut(t *testing.T) {
	b := behind(t, func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != "/v1/support" {
			return false
		}
		_, _ = w.Write(apitest.Zip()[:60])
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	})
	path := filepath.Join(t.TempDir(), "x.zip")
	code := b.run(t.Context(), []string{"support", "-o", path})
	got, err := os.ReadFile(path)
	var want bytes.Buffer
	if err := support.Write(&want, b.now(), []support.Part{b.local.Collect(t.Context(), "")}); err != nil {
		t.Fatal(err)
	}
	if err == nil && !bytes.Equal(got, want.Bytes()) {
		t.Errorf("%d bytes, want %d, %v\n%s", len(got), want.Len(), err, b.transcript(code))
	}
}

// TestSupportGarbageIsRemoved: what is no zip does not stay under a zip's name.
func TestSupportGarbageIsRemoved(t *testing.T) {
	b := behind(t, func(w http.ResponseWriter, r *http.Request) bool {
		return r.URL.Path == "/v1/support" && says(200, "<html>")(w, r)
	})
	path := filepath.Join(t.TempDir(), "x.zip")
	b.run(t.Context(), []string{"support", "-o", path})
	if _, err := os.Stat(path); err == nil {
		t.Error("it is left")
	}
}

// TestStoppedVerdict: a module that is stopped is protected.
func TestStoppedVerdict(t *testing.T) {
	b := newBench(t, false)
	b.node.Set(pair("STOP/NotReady off", "STOP/NotReady off"))
	if b.run(t.Context(), []string{"status"}); strings.Contains(b.out.String(), "no module is protected yet") {
		t.Errorf("%s", b.out.String())
	}
}

// TestFrozenVerdict: a VM whose writes wait is not being started.
func TestFrozenVerdict(t *testing.T) {
	b := newBench(t, false)
	b.node.Set(pair("PRIM/Transient frozen", "?SECOND/Ready"))
	if b.run(t.Context(), []string{"status"}); strings.Contains(b.out.String(), "is being started") {
		t.Errorf("%s", b.out.String())
	}
}

// TestEditorFails: an editor that fails leaves no file that nobody is told of.
func TestEditorFails(t *testing.T) {
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	b := editors(t, "", "false")
	b.run(t.Context(), []string{"config", "edit", "db"})
	left, _ := filepath.Glob(tmp + "/*")
	if len(left) > 0 && !strings.Contains(b.err.String(), left[0]) {
		t.Errorf("%q is left: %s", left, b.err.String())
	}
}

// TestLongInput: standard input has its name in each error.
func TestLongInput(t *testing.T) {
	b := newBench(t, false)
	b.in = endless{}
	if got := b.one(t, t.Context(), "config check -", exitError); !strings.HasPrefix(got, "read standard input: ") {
		t.Errorf("%q", got)
	}
}

// TestSetName: one key of db is set, and no other module gets db's configuration.
func TestSetName(t *testing.T) {
	b := newBench(t, false)
	code := b.run(t.Context(), strings.Fields("config set db name=web01"))
	if code == exitOK {
		t.Errorf("%s, asked %q", b.transcript(code), b.node.Asked())
	}
}

// TestFenceFileAndOption: options beside a file are refused and not dropped.
func TestFenceFileAndOption(t *testing.T) {
	file := filepath.Join(t.TempDir(), "f")
	for text, line := range map[string]string{`[[{"name":"a","agent":"b","options":{}}]]`: " --option ip=1", "[]": "",
		"null": ""} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		b := newBench(t, false)
		code := b.run(t.Context(), strings.Fields("cluster fence set beta --file "+file+line))
		if code == exitOK {
			t.Errorf("%s %s: asked %q\n%s", text, line, b.node.Asked(), b.transcript(code))
		}
	}
}

// TestExplainSuggests: a word that is almost one is suggested.
func TestExplainSuggests(t *testing.T) {
	b := newBench(t, true)
	if b.run(t.Context(), []string{"explain", "epoc"}); !strings.Contains(b.err.String(), "epoch") {
		t.Errorf("%s", b.err.String())
	}
}

// TestUnknownLevel: a level that this release does not know is not taken for ok.
func TestUnknownLevel(t *testing.T) {
	b := behind(t, says(200, `{"cluster":"o","self":"a","version":"9","verdict":{"level":"lost","text":"all is lost"},`+
		`"nodes":[],"modules":[]}`))
	if code := b.run(t.Context(), strings.Fields("status -q")); code == exitOK {
		t.Error("exit 0: ok")
	}
}

// TestWitnessPort: a witness without a port has the default one.
func TestWitnessPort(t *testing.T) {
	for in, want := range map[string]string{"third": "third:7425", "third:": "third:7425", "third:1": "third:1",
		"::1": "[::1]:7425", "[::1]": "[::1]:7425"} {
		if got := witnessAddr(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

// TestSetBlank: a value of blanks or a comment is refused, and does not end the program.
func TestSetBlank(t *testing.T) {
	for _, v := range []string{" ", "\n", "#5", "---", "..."} {
		b := newBench(t, false)
		code := b.run(t.Context(), []string{"config", "set", "db", "policy.restart.max=" + v})
		if code != exitError || !strings.Contains(b.err.String(), "is not a value") {
			t.Errorf("%q: %s", v, b.transcript(code))
		}
	}
}
