package main

import (
	"strings"
	"testing"

	"duet/console/api"
	"duet/console/api/apitest"
)

// TestTasksAreFound: whoever has no ID of a task gets it: from the list, and from the command that began it, whose
// standard output is the ID alone.
func TestTasksAreFound(t *testing.T) {
	b := newBench(t, false)
	code := b.run(t.Context(), []string{"task"})
	if got := b.out.String(); code != exitOK || !strings.Contains(got, "t1") || !strings.Contains(got, "`duet task t1`") ||
		!strings.Contains(got, "The second copy of web01 goes on: `duet status`") {
		t.Errorf("%s", b.transcript(code))
	}
	for _, line := range []string{"vm protect web --no-wait", "vm release db --no-wait",
		"volume verify db/vda --no-wait"} {
		b := newBench(t, false)
		code := b.run(t.Context(), strings.Fields(line))
		if b.out.String() != "t1\n" || !strings.Contains(b.err.String(), "`duet task t1` follows it\n") {
			t.Errorf("%s", b.transcript(code))
		}
	}
	b = newBench(t, false)
	b.node.Steps = nil
	code = b.run(t.Context(), []string{"task"})
	if got := b.out.String(); code != exitOK || !strings.HasPrefix(got, "No long work") ||
		!strings.Contains(got, "\nThe second copy of web01 goes on") {
		t.Errorf("%s", b.transcript(code))
	}
	b.again()
	b.node.Set(pair("PRIM/Ready running", "SECOND/Ready off"))
	if b.run(t.Context(), []string{"task"}); strings.Contains(b.out.String(), "second copy") {
		t.Errorf("nothing is copied: %s", b.out)
	}
}

// TestBeingProtected: a VM whose first copy goes on, which takes hours, is in the status: in the whole one and by its
// name, where its role cannot be told yet.
func TestBeingProtected(t *testing.T) {
	st := apitest.Sample()
	task := apitest.Work()[1]
	task.Module = "big02"
	st.Tasks = []api.Task{task}
	const going = "Going on: protect big02, copying vda 50% 100 MiB/s ETA 52s"
	for line, want := range map[string]struct {
		code int
		said string
	}{
		"status":                     {exitDown, going},
		"status --node alpha":        {exitDown, going},
		"status big02":               {exitDegraded, "big02 is not protected yet.\n" + going},
		"status big02 --json":        {exitDegraded, `"id": "t1"`},
		"status big02 -q":            {exitUnknown, "duet: module big02 on node alpha: not found: it is still being made\n"},
		"status big02 --node alpha":  {exitError, "it is still being made"},
		"status big03":               {exitError, "module big03: not found: there are web01, db, old"},
		"status web01":               {exitDegraded, "web01"},
		"status web01 --node gamma ": {exitError, "its nodes are alpha, beta"},
	} {
		for _, width := range []int{0, 80} {
			b := newBench(t, false)
			b.width = func() int { return width }
			b.node.Set(st)
			code := b.run(t.Context(), strings.Fields(line))
			said := strings.ReplaceAll(b.out.String()+b.err.String(), "\n(", " (")
			if code != want.code || !strings.Contains(said, want.said) {
				t.Errorf("%s: want exit %d and %q:\n%s", line, want.code, want.said, b.transcript(code))
			}
		}
	}
	st.Modules = nil
	b := newBench(t, false)
	b.node.Set(st)
	b.run(t.Context(), []string{"status"})
	if got := b.out.String(); strings.Contains(got, "No modules yet") || !strings.Contains(got, going) {
		t.Errorf("%s", got)
	}
}
