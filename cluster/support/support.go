// Package support makes the zip that is sent to somebody who is to help: what this
// computer and its node's directory tell, what other nodes gathered of theirs, and a list of
// what was left out and why. What is secret never gets into it: keys and passwords are
// hidden on the node that has them, before anything leaves it.
package support

import (
	"archive/zip"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"path"
	"strings"
	"time"
)

// Bounds, in bytes. What is longer loses its beginning: the newest lines are at the end.
const (
	maxFile = 4 << 20
	maxPart = 8 << 20 // of one node, so that it fits into one answer between nodes
)

// LeftOut is the file that lists what is not in the zip.
const LeftOut = "left-out.txt"

// File is one file, by its name in the folder of its node.
type File struct {
	Name string `json:"name"`
	Data []byte `json:"data"`
}

// Part is what one node gave. It travels between nodes as JSON.
type Part struct {
	Node  string   `json:"node"`
	Files []File   `json:"files"`
	Left  []string `json:"left"` // what is missing and why, a sentence each
}

// Add adds a file, without its beginning if it is too long.
func (p *Part) Add(name string, data []byte) {
	short := last(data, maxFile)
	if len(short) < len(data) {
		p.Leave("%s: all but its last %d MiB", name, maxFile>>20)
	}
	p.Files = append(p.Files, File{name, short})
}

// AddJSON adds a value as a file of JSON.
func (p *Part) AddJSON(name string, v any) {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		p.Leave("%s: %v", name, err)
		return
	}
	p.Add(name, text)
}

// Leave notes what is missing.
func (p *Part) Leave(format string, args ...any) {
	p.Left = append(p.Left, fmt.Sprintf(format, args...))
}

// Seal hides the secrets in all files and bounds the whole; the last files go first.
func (p *Part) Seal(secrets []string) {
	size := 0
	kept := p.Files[:0]
	for _, f := range p.Files {
		f.Data = hide(f.Data, secrets)
		if size += len(f.Data); size > maxPart {
			size -= len(f.Data)
			p.Leave("%s: there is too much already", f.Name)
			continue
		}
		kept = append(kept, f)
	}
	p.Files = kept
	for i, l := range p.Left {
		p.Left[i] = string(hide([]byte(l), secrets))
	}
}

// Write writes the zip: a folder for each node, and the list of what was left out.
func Write(w io.Writer, now time.Time, parts []Part) error {
	z := zip.NewWriter(w)
	put := func(name string, data []byte) error {
		f, err := z.CreateHeader(&zip.FileHeader{Name: name, Method: zip.Deflate, Modified: now})
		if err == nil {
			_, err = f.Write(data)
		}
		return err
	}
	var left strings.Builder
	for _, p := range parts {
		for _, f := range p.Files {
			if err := put(safe(p.Node+"/"+f.Name), f.Data); err != nil {
				return fmt.Errorf("write zip: %w", err)
			}
		}
		for _, l := range p.Left {
			fmt.Fprintf(&left, "%s: %s\n", p.Node, strings.ReplaceAll(l, "\n", " "))
		}
	}
	if err := put(LeftOut, []byte(left.String())); err != nil {
		return fmt.Errorf("write zip: %w", err)
	}
	if err := z.Close(); err != nil {
		return fmt.Errorf("write zip: %w", err)
	}
	return nil
}

// safe makes a name that stays inside the folder into which somebody unpacks the zip, and
// that every system takes.
func safe(name string) string {
	parts := strings.Split(name, "/")
	for i, s := range parts {
		s = strings.Map(func(r rune) rune {
			if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._-+", r) {
				return r
			}
			return '_'
		}, s)
		if strings.Trim(s, ".") == "" {
			s = "_"
		}
		parts[i] = s
	}
	return path.Join(parts...)
}

// last is the end of b, from the beginning of a line on.
func last(b []byte, n int) []byte {
	if len(b) <= n {
		return b
	}
	b = b[len(b)-n:]
	if i := bytes.IndexByte(b, '\n'); i >= 0 {
		b = b[i+1:]
	}
	return b
}
