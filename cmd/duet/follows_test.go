package main

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"duet/appmodules"
	"duet/appmodules/config"
	"duet/console/api"
)

// TestWhatAnEditDoes: an edit that moves or ends a guest at once says so, and no other one does.
func TestWhatAnEditDoes(t *testing.T) {
	m := func(alpha, beta string) api.ModuleStatus {
		out := api.ModuleStatus{Name: "db"}
		for node, words := range map[string]string{"alpha": alpha, "beta": beta} {
			f := strings.Fields(words)
			out.Nodes = append(out.Nodes, api.NodeState{Node: node, Role: f[0], Status: f[1], VM: f[2], Stale: len(f) > 3})
		}
		return out
	}
	policy := func(primary, failback string, frozen time.Duration) appmodules.Policy {
		p := appmodules.Default().Policy
		p.Primary, p.Failback, p.Frozen = primary, failback, appmodules.Standstill(frozen)
		return p
	}
	away, here := m("SECOND Ready off", "PRIM Ready running"), m("PRIM Ready running", "SECOND Ready off")
	manual, auto := policy("alpha", "manual", 0), policy("alpha", "auto", 0)
	for what, c := range map[string]struct {
		was, is appmodules.Policy
		m       api.ModuleStatus
		want    string
	}{
		"failback": {manual, auto, away, "db moves to alpha now: its guest is shut down on beta and started on alpha"},
		"primary":  {policy("beta", "auto", 0), auto, away, "db moves to alpha now"},
		"a copy that is not complete": {manual, auto, m("SECOND Transient off", "PRIM NotReady running"),
			"db moves to alpha as soon as its copy there is complete"},
		"a node that is away": {manual, auto, m("SECOND Ready off stale", "ALONE Ready running"), "as soon as"},
		"it is at home":       {manual, auto, here, ""},
		"as it was":           {auto, auto, away, ""},
		"back to manual":      {auto, manual, away, ""},
		"it does not run":     {manual, auto, m("STOP NotReady off", "STOP NotReady off"), ""},
		"a guest that freezes": {manual, policy("alpha", "manual", time.Minute),
			m("PRIM NotReady frozen", "SECOND Ready off"), "db stands still on alpha, and its guest is ended when it has for " +
				"1m0s"},
		"one that goes on": {manual, policy("alpha", "manual", time.Minute), here, ""},
	} {
		if got := follows(c.was, c.is, c.m); !strings.Contains(got, c.want) || c.want == "" && got != "" {
			t.Errorf("%s: %q, want %q", what, got, c.want)
		}
	}
}

// TestEditIsAskedFor: what moves a guest is done after a yes only, by whatever command.
func TestEditIsAskedFor(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	m := appmodules.Default()
	m.Name, m.Nodes, m.Spec = "db", []string{"alpha", "beta"}, appmodules.VM{Domain: "db"}
	m.Policy.Primary = "alpha"
	text, err := config.Format(m)
	if err != nil {
		t.Fatal(err)
	}
	m.Policy.Failback = "auto"
	edited, err := config.Format(m)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "db.yaml")
	if err := os.WriteFile(file, edited, 0o600); err != nil {
		t.Fatal(err)
	}
	const facts = "db moves to alpha now: its guest is shut down on beta and started on alpha"
	for _, line := range []string{"config set db policy.failback=auto", "config apply " + file, "config edit db"} {
		for _, answer := range []string{"", "no\n", "yes\n", "--yes"} {
			b := newBench(t, false)
			b.node.YAML = string(text)
			b.env = func(k string) string {
				return map[string]string{"DUET_CONNECT": "unix://" + b.socket, "EDITOR": "cp " + file}[k]
			}
			words := strings.Fields(line)
			if answer == "--yes" {
				words = append(words, answer)
			}
			typed, keys, err := os.Pipe() // as a terminal, which the editor has before
			if err != nil {
				t.Fatal(err)
			}
			_, err = keys.WriteString(answer)
			if err := errors.Join(err, keys.Close()); err != nil {
				t.Fatal(err)
			}
			b.in, b.inTTY = typed, strings.HasSuffix(answer, "\n")
			code := b.run(t.Context(), words)
			typed.Close() // it was read
			applied := slices.ContainsFunc(b.node.Asked(), func(call string) bool { return strings.HasPrefix(call, "apply") })
			said := b.err.String()
			if answer == "--yes" {
				said = b.out.String()
			}
			if yes := strings.Contains(answer, "yes"); applied != yes || (code == exitOK) != yes ||
				!strings.Contains(said, facts) {
				t.Errorf("%s, answered %q: applied %v\n%s", line, answer, applied, b.transcript(code))
			}
		}
	}
}
