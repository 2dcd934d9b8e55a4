// Package config reads and writes the YAML of a module: strict, with the line of every fault.
package config

import (
	"errors"
	"fmt"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/parser"

	"duet/appmodules"
)

// ErrFaulty is wrapped by every error of Parse.
var ErrFaulty = errors.New("faulty configuration")

// maxSize bounds what Parse reads, in bytes; the largest sensible module has a few thousand.
const maxSize = 256 << 10

// Parse reads the YAML of one module. Unknown keys are refused. file names it in
// errors, as "file:line: path: text", one line for each fault.
func Parse(file string, text []byte) (appmodules.Module, error) {
	return ParseOnto(appmodules.Default(), file, text)
}

// ParseOnto is Parse for YAML that may leave out what m already says.
func ParseOnto(m appmodules.Module, file string, text []byte) (appmodules.Module, error) {
	if len(text) > maxSize {
		return m, fmt.Errorf("%w: %s: %d bytes, at most %d are read", ErrFaulty, file, len(text), maxSize)
	}
	doc, err := document(m, text)
	if err != nil {
		return m, fmt.Errorf("%w: %s:%s kind: %w", ErrFaulty, file, line(text, "kind"), err)
	}
	if err := yaml.UnmarshalWithOptions(text, doc, yaml.Strict()); err != nil {
		return m, fmt.Errorf("%w: %s:%s", ErrFaulty, file, position(err))
	}
	m = doc.Module()
	faults := m.Validate()
	if len(faults) == 0 {
		return m, nil
	}
	lines := make([]string, len(faults))
	for i, f := range faults {
		lines[i] = fmt.Sprintf("%s:%s %s", file, line(text, f.Path), f.Error())
	}
	return m, fmt.Errorf("%w: %s", ErrFaulty, strings.Join(lines, "\n"))
}

// document is the document of m that text is read into: of the kind that text names, if it names one.
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

// Format writes m as YAML that Parse reads back to m.
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

// position turns the library's error into "line: text".
func position(err error) string {
	var y yaml.Error
	if errors.As(err, &y) && y.GetToken() != nil {
		return fmt.Sprintf("%d: %s", y.GetToken().Position.Line, y.GetMessage())
	}
	return " " + err.Error()
}

// line finds the line of a path in text; a path that is missing gives the line of the nearest parent.
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
