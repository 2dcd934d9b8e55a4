// Package config reads and writes the YAML of a module: strict, with the line of every fault.
//
// It knows the form only: keys are those of the kind's appmodules.Document, and what a value may be is for Validate of
// the module and for the types of the policy. What fits a cluster, and what may be edited, is for package registry.
// Everything is pure, and safe for any number of goroutines. Text is what people write, so nothing of it is silently
// left out: where the YAML library does so, whole and blank look first.
package config

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"

	"duet/appmodules"
)

// ErrFaulty is wrapped by every error of Parse, ParseOnto and Set: the text, the path or the value is wrong.
var ErrFaulty = errors.New("faulty configuration")

// ErrNoKey is wrapped, beside ErrFaulty, by errors of Set: there is no such key.
var ErrNoKey = errors.New("no such key")

// maxSize bounds what Parse reads, in bytes; the largest sensible module has a few thousand. Text comes over the API,
// and the library builds a tree of it.
const maxSize = 256 << 10

// Parse reads the YAML of one module. Unknown keys are refused. file names it in
// errors, as "file:line: path: text", one line for each fault. What cannot be read is told alone, what Validate and
// Mistakes find all at once. Keys that are left out have their defaults; after an error the module is of no use.
func Parse(file string, text []byte) (appmodules.Module, error) {
	return ParseOnto(appmodules.Default(), file, text)
}

// ParseOnto is Parse for YAML that may leave out what m already says. YAML that names another kind than m's is read
// into the document of that kind.
func ParseOnto(m appmodules.Module, file string, text []byte) (appmodules.Module, error) {
	if len(text) > maxSize {
		return m, fmt.Errorf("%w: %s: %d bytes, at most %d are read", ErrFaulty, file, len(text), maxSize)
	}
	if err := whole(text); err != nil {
		return m, fmt.Errorf("%w: %s:%w", ErrFaulty, file, err)
	}
	doc, err := document(m, text)
	if err != nil {
		return m, fmt.Errorf("%w: %s:%s kind: %w", ErrFaulty, file, line(text, "kind"), err)
	}
	if !blank(text) { // the library would empty the document
		if err := yaml.UnmarshalWithOptions(text, doc, yaml.Strict()); err != nil {
			return m, fmt.Errorf("%w: %s:%s", ErrFaulty, file, position(text, err))
		}
		m = doc.Module()
	}
	faults := append(m.Validate(), m.Policy.Mistakes()...)
	if len(faults) == 0 {
		return m, nil
	}
	lines := make([]string, len(faults))
	for i, f := range faults {
		lines[i] = fmt.Sprintf("%s:%s %s", file, line(text, f.Path), f.Error())
	}
	return m, fmt.Errorf("%w: %s", ErrFaulty, strings.Join(lines, "\n"))
}

// blank: text says nothing, but for comments. Then the module is what it was, and Validate says what is missing.
func blank(text []byte) bool {
	file, err := parser.ParseBytes(text, 0)
	return err == nil && !slices.ContainsFunc(file.Docs, func(d *ast.DocumentNode) bool { return d.Body != nil })
}

// whole refuses what the library would leave out in silence: a second document, and what a number has behind its
// point. A text that cannot be parsed at all passes: its reading fails, with the line.
func whole(text []byte) error {
	file, err := parser.ParseBytes(text, 0)
	if err != nil {
		return nil // it is said with its line when the text is read
	}
	if len(file.Docs) > 1 && file.Docs[1].Body != nil {
		return fmt.Errorf("%d: a second document begins here: a module is one", file.Docs[1].Body.GetToken().Position.Line)
	}
	isFloat := func(n ast.Node) bool { _, yes := n.(*ast.FloatNode); return yes }
	if n := find(text, isFloat); n != nil {
		return fmt.Errorf("%d: %s: a whole number is wanted, not %q", n.GetToken().Position.Line, pathOf(n),
			n.GetToken().Value)
	}
	return nil
}

// document is the document of m that text is read into: of the kind that text names, if it names one. It says what m
// says, so a key that text leaves out stays as it is in m. A kind that is not known is an error.
func document(m appmodules.Module, text []byte) (appmodules.Document, error) {
	var head struct {
		Kind appmodules.Kind `yaml:"kind"`
	}
	// What is wrong with the text is said with its line when all of it is read.
	if err := yaml.Unmarshal(text, &head); err == nil && head.Kind != "" {
		m.Kind = head.Kind
	}
	return appmodules.DocumentOf(m)
}

// Format writes m as YAML that Parse reads back to m. Registry takes an edit that changes nothing of this text for
// none.
func Format(m appmodules.Module) ([]byte, error) {
	doc, err := appmodules.DocumentOf(m)
	if err != nil {
		return nil, fmt.Errorf("format module %s: %w", m.Name, err)
	}
	text, err := yaml.MarshalWithOptions(doc, yaml.Indent(2), yaml.IndentSequence(true))
	if err != nil {
		return nil, fmt.Errorf("format module %s: %w", m.Name, err)
	}
	return text, nil
}

// Initial is what a new module has at the path of a key of its policy, as YAML writes it; "" for what each module has
// of its own, such as its name.
func Initial(path string) string {
	text, err := Format(appmodules.Default())
	if err != nil || !strings.HasPrefix(path, "policy.") {
		return ""
	}
	return Value(text, path)
}

// Value is what text has at the path of a key, as YAML writes it; "" where there is none.
func Value(text []byte, path string) string {
	at, err := yaml.PathString("$." + path)
	if err != nil {
		return ""
	}
	node, err := at.ReadNode(bytes.NewReader(text))
	if err != nil {
		return ""
	}
	return node.String()
}

// Set gives the key at path, which text has, another value, and leaves the rest of text as it is. What the value may
// be is for Parse to say. Only a key with a value of its own can be set, not one that has keys.
func Set(text []byte, path, value string) ([]byte, error) {
	file, err := parser.ParseBytes(text, parser.ParseComments)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFaulty, err)
	}
	unknown := fmt.Errorf("%w: %w: %q: `duet config explain` lists them", ErrFaulty, ErrNoKey, path)
	at, err := yaml.PathString("$." + path)
	if err != nil || strings.Contains(path, "..") { // which to the library is "at any depth"
		return nil, unknown
	}
	if node, err := at.FilterFile(file); err != nil || node == nil {
		return nil, unknown
	} else if _, inner := node.(ast.MapNode); inner {
		return nil, fmt.Errorf("%w: %s has keys of its own: `duet config explain %s` lists them", ErrFaulty, path, path)
	}
	if !isValue(value) {
		return nil, fmt.Errorf("%w: %s: %q is not a value", ErrFaulty, path, value)
	}
	if err := at.ReplaceWithReader(file, strings.NewReader(value)); err != nil {
		return nil, fmt.Errorf("%w: %s: %q is not a value: %w", ErrFaulty, path, value, err)
	}
	return []byte(strings.TrimRight(file.String(), "\n") + "\n"), nil
}

// isValue: text is something in YAML. Blanks, a comment or the border of a document are nothing, which the library
// does not expect as a replacement. That it is of the type of the key is for Parse to say.
func isValue(text string) bool {
	file, err := parser.ParseBytes([]byte(text), 0)
	return err == nil && len(file.Docs) == 1 && file.Docs[0].Body != nil && file.Docs[0].Start == nil &&
		file.Docs[0].End == nil
}

// position turns an error of reading text into "line: path: what is wrong". The words of the library for types and
// nodes are Go's and YAML's; people get others.
func position(text []byte, err error) string {
	var y yaml.Error
	if !errors.As(err, &y) || y.GetToken() == nil {
		return refusedValue(text, err)
	}
	said := y.GetMessage()
	var mistyped *yaml.TypeError
	var shape *yaml.UnexpectedNodeTypeError
	var large *yaml.OverflowError
	switch {
	case errors.As(err, &mistyped):
		said = fmt.Sprintf("%s is wanted, not %q", wanted(mistyped.DstType), mistyped.Token.Value)
	case errors.As(err, &large):
		said = large.SrcNum + " is too large a number"
	case errors.As(err, &shape) && shape.Expected == ast.MappingType:
		said = fmt.Sprintf("a block of keys is wanted, not %q", shape.Token.Value)
	case errors.As(err, &shape) && shape.Expected == ast.SequenceType:
		said = fmt.Sprintf("a list is wanted, not %q", shape.Token.Value)
	default:
		return fmt.Sprintf("%d: %s", y.GetToken().Position.Line, said)
	}
	at := y.GetToken().Position
	if n := find(text, func(n ast.Node) bool { return n.GetToken().Position.Offset == at.Offset }); n != nil {
		said = pathOf(n) + ": " + said
	}
	return fmt.Sprintf("%d: %s", at.Line, said)
}

// refusedValue is position for a value that its own type refused, of which the library tells no place: the text that
// the error quotes is looked for, so UnmarshalText of every type of the policy has to quote (%q) what it refuses. Where
// the text stands several times, the first that is refused by itself is meant.
func refusedValue(text []byte, err error) string {
	quoted := all(text, func(n ast.Node) bool {
		_, scalar := n.(ast.ScalarNode)
		return scalar && strings.Contains(err.Error(), strconv.Quote(n.GetToken().Value))
	})
	if len(quoted) == 0 {
		return " " + err.Error()
	}
	n := quoted[max(0, slices.IndexFunc(quoted, func(n ast.Node) bool { return refusedAlone(text, n) }))]
	return fmt.Sprintf("%d: %s: %v", n.GetToken().Position.Line, pathOf(n), err)
}

// refusedAlone: a configuration of the kind of text that has the value of n, and nothing else, cannot be read.
func refusedAlone(text []byte, n ast.Node) bool {
	doc, err := document(appmodules.Default(), text)
	if err != nil {
		return false
	}
	alone := n.String()
	steps := strings.Split(strings.ReplaceAll(pathOf(n), "[", ".["), ".")
	for _, step := range slices.Backward(steps) {
		if strings.HasPrefix(step, "[") {
			alone = "[" + alone + "]"
			continue
		}
		alone = fmt.Sprintf("{%q: %s}", step, alone)
	}
	return yaml.Unmarshal([]byte(alone), doc) != nil
}

// wanted is what a value of a type is, for people.
func wanted(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Int, reflect.Int64, reflect.Uint64:
		return "a number"
	case reflect.Bool:
		return "true or false"
	case reflect.Slice, reflect.Array:
		return "a list"
	case reflect.Struct, reflect.Map:
		return "a block of keys"
	}
	return "a text"
}

// find is the innermost node of text that is as wanted, the last one of several; nil: there is none, or text cannot be
// read. A walk meets a node before those in it, so the last hit is the innermost of its branch.
func find(text []byte, as func(ast.Node) bool) ast.Node {
	found := all(text, as)
	if len(found) == 0 {
		return nil
	}
	return found[len(found)-1]
}

// all are the nodes of text that are as wanted, outer ones first.
func all(text []byte, as func(ast.Node) bool) []ast.Node {
	file, err := parser.ParseBytes(text, 0)
	if err != nil {
		return nil
	}
	f := &finder{as: as}
	for _, doc := range file.Docs {
		if doc.Body != nil {
			ast.Walk(f, doc.Body)
		}
	}
	return f.found
}

// finder is an ast.Visitor that remembers nodes.
type finder struct {
	as    func(ast.Node) bool
	found []ast.Node
}

// Visit looks at a node and goes on into it.
func (f *finder) Visit(n ast.Node) ast.Visitor {
	if n.GetToken() != nil && f.as(n) {
		f.found = append(f.found, n)
	}
	return f
}

// pathOf is where a node stands, as keys are named.
func pathOf(n ast.Node) string { return strings.TrimPrefix(n.GetPath(), "$.") }

// line finds the line of a path in text, as "7:"; a path that is missing gives the line of the nearest parent; empty
// where no part of it is there.
func line(text []byte, path string) string {
	file, err := parser.ParseBytes(text, 0)
	if err != nil {
		return ""
	}
	for p := path; p != ""; p = parent(p) {
		yp, err := yaml.PathString("$." + p)
		if err != nil {
			return ""
		}
		if node, err := yp.FilterFile(file); err == nil && node != nil && node.GetToken() != nil {
			return fmt.Sprintf("%d:", node.GetToken().Position.Line)
		}
	}
	return ""
}

func parent(path string) string {
	i := strings.LastIndexAny(path, ".[")
	if i < 0 {
		return ""
	}
	return path[:i]
}
