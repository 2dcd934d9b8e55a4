package main

import (
	"fmt"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// TestTable: every bug fits the tree as it is and gives a file that can be parsed, and says where it is from.
func TestTable(t *testing.T) {
	root, err := tree()
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, b := range all() {
		switch {
		case b.Name == "" || b.Source == "" || b.Breaks == "" || b.Within == 0 || b.Edit.Before == b.Edit.After:
			t.Errorf("%+v says too little", b)
		case names[b.Name]:
			t.Errorf("%s is there twice", b.Name)
		}
		names[b.Name] = true
		files := map[string]bool{}
		for _, e := range b.edits() {
			if files[e.File] {
				t.Errorf("%s edits %s twice", b.Name, e.File)
			}
			files[e.File] = true
			text, err := e.fit(root)
			if err != nil {
				t.Errorf("%s: %v", b.Name, err)
				continue
			}
			if _, err := parser.ParseFile(token.NewFileSet(), e.File, text, 0); err != nil {
				t.Errorf("%s: %v", b.Name, err)
			}
		}
	}
	if len(names) < 30 {
		t.Errorf("%d bugs, at least 30 are promised", len(names))
	}
}

// TestFit: a text that is not there, or twice, does not fit.
func TestFit(t *testing.T) {
	root, err := tree()
	if err != nil {
		t.Fatal(err)
	}
	for _, before := range []string{"this is not there", "func "} {
		e := Edit{votes, before, ""}
		if _, err := e.fit(root); err == nil || !strings.Contains(err.Error(), "does not fit") {
			t.Errorf("%q: %v", before, err)
		}
	}
}

// TestFound: one bug is found again from end to end.
func TestFound(t *testing.T) {
	if testing.Short() {
		t.Skip("it compiles the simulator: not with -short")
	}
	var out, errs strings.Builder
	if code := run(t.Context(), []string{"-only", "silent-witness-agrees", "-jobs", "1"}, &out, &errs); code != ok {
		t.Fatalf("status %d\n%s%s", code, out.String(), errs.String())
	}
	if !strings.Contains(out.String(), "1 of 1 bugs were found again") {
		t.Error(out.String())
	}
}

// TestUnknownBug: a name that no bug has is told, and nothing is tried.
func TestUnknownBug(t *testing.T) {
	for _, only := range []string{"silent-witness", "silent-witness-agrees,"} {
		var out, errs strings.Builder
		if code := run(t.Context(), []string{"-only", only}, &out, &errs); code != unable || out.Len() > 0 ||
			!strings.Contains(errs.String(), "there is no bug") {
			t.Errorf("-only %s: status %d\n%s%s", only, code, out.String(), errs.String())
		}
	}
}

// program is a shell script that stands for a test binary; it is given the arguments of one.
func program(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tests")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestHuntComparesWithSound: only what does not fail without the bug counts, of schedules and scenarios alike, and no
// more are tried than may be.
func TestHuntComparesWithSound(t *testing.T) {
	root, err := tree()
	if err != nil {
		t.Fatal(err)
	}
	const numbered = `while [ $# -gt 0 ]; do case $1 in -seed) first=$2;; -schedules) n=$2;; esac; shift; done
for i in $(seq $first $((first + n - 1))); do
	case " %s " in *" $i "*) printf 'found\t%%d\tscenario\tbroken\n' $i; exit;; esac
done
printf 'nothing\t%%d\n' $n
`
	for name, c := range map[string]struct {
		by              Search
		infected, sound string
		within          uint64
		want            result
	}{
		"schedule": {Model, "3 5", "3", 9, result{found: true, tried: 5, seed: 5, where: "scenario", what: "broken"}},
		"scenario": {ModelScenarios, "3 5", "3", 9,
			result{found: true, tried: 5, seed: 5, where: "scenario", what: "broken"}},
		"too late":     {ModelScenarios, "5", "", 4, result{tried: 4}},
		"after others": {ModelScenarios, "1 9", "1", 4, result{tried: 4}},
		"all sound": {Model, "1 2 3", "1 2 3", 3,
			result{tried: 3, what: "what fails there fails without the bug too"}},
	} {
		t.Run(name, func(t *testing.T) {
			h := &hunter{root, map[string]string{"testbed/sim": program(t, fmt.Sprintf(numbered, c.sound))}}
			got, err := h.hunt(t.Context(), program(t, fmt.Sprintf(numbered, c.infected)), c.by, c.within)
			if err != nil || !reflect.DeepEqual(got, c.want) {
				t.Errorf("%+v, want %+v (%v)", got, c.want, err)
			}
		})
	}
}

// TestSearchOfItsOwnEnd: what ended for another reason than a bug has found none.
func TestSearchOfItsOwnEnd(t *testing.T) {
	root, err := tree()
	if err != nil {
		t.Fatal(err)
	}
	late := program(t, "echo 'panic: test timed out after 30m0s'; exit 2\n")
	for _, by := range []Search{Rules, Crashes, Model, DiskScenarios} {
		h := &hunter{root, map[string]string{by.pkg(): late}}
		r, err := h.hunt(t.Context(), late, by, 7)
		if err != nil || r.found || !strings.Contains(r.verdict(), "did not end") {
			t.Errorf("%s: %+v (%v)", by, r, err)
		}
		if r, err := h.hunt(t.Context(), program(t, "exit 1\n"), by, 7); err == nil {
			t.Errorf("%s: a program that says nothing: %+v", by, r)
		}
	}
}
