package main

import (
	"go/parser"
	"go/token"
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
		text, err := b.Edit.fit(root)
		if err != nil {
			t.Errorf("%s: %v", b.Name, err)
			continue
		}
		if _, err := parser.ParseFile(token.NewFileSet(), b.Edit.File, text, 0); err != nil {
			t.Errorf("%s: %v", b.Name, err)
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
