//go:build linux

package deps

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// packages reads the names in a list.
func packages(t *testing.T, list string) []string {
	t.Helper()
	b, err := os.ReadFile(list)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, line := range strings.Split(string(b), "\n") {
		name, why, _ := strings.Cut(line, "#")
		if name = strings.TrimSpace(name); name == "" {
			continue
		}
		if strings.TrimSpace(why) == "" || strings.Contains(name, " ") || slices.Contains(names, name) {
			t.Errorf("%q: want a new name and a reason", line)
		}
		names = append(names, name)
	}
	return names
}

// TestLists: each name of the other lists is there once, with a reason.
func TestLists(t *testing.T) {
	for _, list := range []string{"cross.txt", "release.txt"} {
		if len(packages(t, list)) == 0 {
			t.Errorf("%s is empty", list)
		}
	}
}

// commands finds the external programs that Go files below root run: the first constant text in a call of one of these
// functions, the Path of a proc.Spec, and the words of shell scripts that are the name of a program.
func commands(t *testing.T, root string) map[string]string {
	t.Helper()
	found := map[string]string{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			for _, program := range run(n) {
				found[program] = path
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// run returns the programs that one piece of code names.
func run(n ast.Node) []string {
	switch n := n.(type) {
	case *ast.CallExpr:
		if !slices.Contains([]string{"Command", "CommandContext", "LookPath", "Run", "output"}, called(n.Fun)) {
			return nil
		}
		for _, arg := range n.Args[:min(2, len(n.Args))] { // the first may be a context
			if s, ok := constant(arg); ok {
				return []string{s}
			}
		}
	case *ast.KeyValueExpr:
		key, isName := n.Key.(*ast.Ident)
		if s, ok := constant(n.Value); ok && isName && key.Name == "Path" {
			return []string{s}
		}
	case *ast.BasicLit:
		if s, ok := constant(n); ok && strings.HasPrefix(s, "set -e\n") {
			words := strings.FieldsFunc(s, func(r rune) bool { return strings.ContainsRune(" \t\n;|&()", r) })
			return slices.DeleteFunc(words, func(word string) bool {
				_, err := exec.LookPath(word)
				return err != nil || strings.Contains(word, "/")
			})
		}
	}
	return nil
}

// called returns the last name of a function expression, "" for the Run of tests and benchmarks.
func called(fun ast.Expr) string {
	switch f := fun.(type) {
	case *ast.Ident:
		return f.Name
	case *ast.SelectorExpr:
		if x, ok := f.X.(*ast.Ident); ok && (x.Name == "t" || x.Name == "b") {
			return ""
		}
		return f.Sel.Name
	}
	return ""
}

func constant(e ast.Expr) (string, bool) {
	lit, ok := e.(*ast.BasicLit)
	if !ok || lit.Kind != token.STRING {
		return "", false
	}
	s, err := strconv.Unquote(lit.Value)
	return s, err == nil
}

// owners returns the packages that bring each program, by one question to dpkg: where it is a link (gcc is gcc-12), the
// link's and the program's. Unknown programs are left out.
func owners(programs []string) map[string][]string {
	byPath := map[string]string{}
	for _, program := range programs {
		path, err := exec.LookPath(program)
		if err != nil {
			continue
		}
		// /bin is a link to /usr/bin, and packages know their files by either name; some programs are links too.
		for _, p := range []string{path, resolved(path)} {
			for _, name := range []string{p, strings.TrimPrefix(p, "/usr"), "/usr" + p} {
				byPath[name] = program
			}
		}
	}
	out, _ := exec.Command("dpkg",
		append([]string{"-S"}, slices.Sorted(maps.Keys(byPath))...)...).Output() // fails if any is unknown
	found := map[string][]string{}
	for _, line := range strings.Split(string(out), "\n") {
		pkg, path, ok := strings.Cut(line, ": ")
		if ok && !strings.HasPrefix(line, "diversion by ") {
			pkg, _, _ = strings.Cut(pkg, ":") // libc6:amd64
			found[byPath[path]] = append(found[byPath[path]], pkg)
		}
	}
	return found
}

func resolved(path string) string {
	if p, err := filepath.EvalSymlinks(path); err == nil {
		return p
	}
	return path
}

// missing returns what install.sh would install here, "" for nothing.
func missing(t *testing.T) string {
	t.Helper()
	if _, err := exec.LookPath("dpkg-query"); err != nil {
		t.Skip("needs the command dpkg-query, that is, Debian")
	}
	out, err := exec.Command("./install.sh", "--check").CombinedOutput()
	if err == nil && len(out) > 0 {
		t.Errorf("it says %s", out)
	}
	if err != nil && len(out) == 0 {
		t.Error(err)
	}
	return string(out)
}

// TestEveryCommandHasItsPackage fails when the testbed runs a program that install.sh would not bring.
func TestEveryCommandHasItsPackage(t *testing.T) {
	listed := packages(t, "packages.txt")
	if names := missing(t); names != "" {
		t.Skip(names)
	}
	found := commands(t, "..")
	for _, must := range []string{"nft", "virsh", "libvirtd", "umount"} {
		if found[must] == "" {
			t.Errorf("the search does not see that %s is run", must)
		}
	}
	// The toolchain is not Debian's, and no-such-program is none on purpose.
	maps.DeleteFunc(found, func(program, _ string) bool {
		return program == "go" || strings.HasPrefix(program, "no-such-") || strings.ContainsAny(program, " /")
	})
	owner := owners(slices.Collect(maps.Keys(found)))
	for _, program := range slices.Sorted(maps.Keys(found)) {
		if !slices.ContainsFunc(owner[program], func(pkg string) bool { return slices.Contains(listed, pkg) }) {
			t.Errorf("%s, run in %s, is in packages %q, which packages.txt does not name", program, found[program],
				owner[program])
		}
	}
}
