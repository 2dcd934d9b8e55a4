package testbed

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/scanner"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"
)

const (
	maxFields = 20  // of a struct; an embedded one counts as one
	maxColumn = 120 // characters of a line; a tab is one, and a struct tag, which cannot be cut, does not count
)

// sources are the Go files of the tree by their path from its root.
func sources(t *testing.T) []string {
	t.Helper()
	var all []string
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() && path != ".." && (name == "testdata" || name == "node_modules" || strings.HasPrefix(name, ".")) {
			return filepath.SkipDir
		}
		if !d.IsDir() && strings.HasSuffix(name, ".go") {
			all = append(all, filepath.ToSlash(strings.TrimPrefix(path, ".."+string(filepath.Separator))))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 100 {
		t.Fatalf("only %d files: this is not the tree", len(all))
	}
	return all
}

// structs are the struct types of a file by name, with the number of their fields. One
// without a name is named after the type or variable it is in.
func structs(f *ast.File) map[string]int {
	found := map[string]int{}
	var name string
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.TypeSpec:
			name = n.Name.Name
		case *ast.ValueSpec:
			name = n.Names[0].Name
		case *ast.FuncDecl:
			name = n.Name.Name
		case *ast.StructType:
			count := 0
			for _, field := range n.Fields.List {
				count += max(1, len(field.Names))
			}
			found[name] = max(found[name], count)
		}
		return true
	})
	return found
}

// TestNoLargeStruct: what has very many fields has several owners, and no invariant that
// anybody could keep.
func TestNoLargeStruct(t *testing.T) {
	for _, path := range sources(t) {
		f, err := parser.ParseFile(token.NewFileSet(), filepath.Join("..", path), nil, parser.SkipObjectResolution)
		if err != nil {
			t.Error(err)
			continue
		}
		for name, fields := range structs(f) {
			if fields > maxFields {
				t.Errorf("%s: struct %s has %d fields, at most %d are allowed", path, name, fields, maxFields)
			}
		}
	}
}

// TestStructsAreCounted: names that share a type count each, an embedded struct counts once.
func TestStructsAreCounted(t *testing.T) {
	const src = `package p
type a struct { b; c, d int; e struct{ f, g, h, i, j, k int } }
var v struct{ l int }
func f() { type m struct{ n, o int } }`
	f, err := parser.ParseFile(token.NewFileSet(), "p.go", src, 0)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := fmt.Sprint(structs(f)), "map[a:6 m:2 v:1]"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// TestLinesAreNarrow: two files stand side by side on one screen.
func TestLinesAreNarrow(t *testing.T) {
	for _, path := range sources(t) {
		for _, at := range wide(t, filepath.Join("..", path)) {
			t.Errorf("%s:%d: longer than %d characters", path, at, maxColumn)
		}
	}
}

// wide are the numbers of the lines of a file that are too long. Raw strings and the tags of structs cannot be cut.
func wide(t *testing.T, path string) (at []int) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	whole := uncut(text)
	for i, line := range strings.Split(string(text), "\n") {
		if utf8.RuneCountInString(line) > maxColumn && !whole[i+1] {
			at = append(at, i+1)
		}
	}
	return at
}

// uncut are the numbers of the lines that a raw string is in.
func uncut(text []byte) map[int]bool {
	files := token.NewFileSet()
	file := files.AddFile("", files.Base(), len(text))
	var tokens scanner.Scanner
	tokens.Init(file, text, nil, 0)
	lines := map[int]bool{}
	for {
		pos, kind, literal := tokens.Scan()
		if kind == token.EOF {
			return lines
		}
		if kind == token.STRING && literal[0] == '`' {
			for line := file.Line(pos); line <= file.Line(pos+token.Pos(len(literal))); line++ {
				lines[line] = true
			}
		}
	}
}

// TestRawStringsAreNotCut: they count whether they have one line or several.
func TestRawStringsAreNotCut(t *testing.T) {
	const text = "package p\n\nvar a = `x`\n\n// `b`\nvar c = `\ny\n` + \"z\"\nvar d int\n"
	if got, want := fmt.Sprint(uncut([]byte(text))), "map[3:true 6:true 7:true 8:true]"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// TestNoPrograms: what is built is not kept. One that `go build ./cmd/duet` leaves in the tree is 17 MB.
func TestNoPrograms(t *testing.T) {
	out, err := exec.Command("git", "-C", "..", "ls-files", "-z").Output()
	if err != nil {
		t.Skipf("this is no checkout: %v", err)
	}
	for _, path := range strings.Split(strings.TrimRight(string(out), "\x00"), "\x00") {
		if program(t, filepath.Join("..", path)) {
			t.Errorf("%s is a program", path)
		}
	}
	if self, err := os.Executable(); err != nil || !program(t, self) {
		t.Errorf("this test is taken for none: %v", err)
	}
}

// program tells by how it begins that a file is for the kernel to run. One that is not there is none.
func program(t *testing.T, path string) bool {
	t.Helper()
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	head := make([]byte, 4)
	n, _ := f.Read(head) // an empty one has none
	return string(head[:n]) == "\x7fELF"
}
