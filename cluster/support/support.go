// Package support makes the zip that is sent to somebody who is to help: what this
// computer and its node's directory tell, what other nodes gathered of theirs, and a list of
// what was left out and why. What is secret never gets into it: keys and passwords are
// hidden on the node that has them, before anything leaves it.
//
// Hiding is by value and by form: what this node knows to be secret (secretsOf), and what looks like a private key
// or a token. A secret that is neither, such as one that a person typed into a wrong field, is not found: whoever
// adds a file thinks of that. Gathering stops nothing and fails nowhere; what cannot be had is in Part.Left.
//
// Goroutines run the programs of Collect, which waits for them. Files: support.go the zip and its bounds, collect.go
// what is gathered, secrets.go what is hidden. A new source is a line in commands or files; a new kind of secret
// belongs into secretsOf before anything that shows it is added.
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
	// Of one node. Base64 in JSON makes it a third longer, and it has to fit into one answer between nodes
	// (16 MiB in package control).
	maxPart = 8 << 20
)

// LeftOut is the file that lists what is not in the zip. It is at the top of the zip, and always there: an empty one
// says that nothing is missing.
const LeftOut = "left-out.txt"

// File is one file, by its name in the folder of its node. Folders in the name are separated by slashes; Write makes
// what else is in it harmless.
type File struct {
	Name string `json:"name"`
	Data []byte `json:"data"`
}

// Part is what one node gave. It travels between nodes as JSON.
type Part struct {
	Node  string   `json:"node"` // the name of its folder
	Files []File   `json:"files"`
	Left  []string `json:"left"` // what is missing and why, a sentence each
}

// Add adds a file, without its beginning if it is too long. The part keeps data: it is not to be changed later. A
// name may be there twice, and then is in the zip twice.
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

// Leave notes what is missing. The sentence is sealed like the files, if it is there by then.
func (p *Part) Leave(format string, args ...any) {
	p.Left = append(p.Left, fmt.Sprintf(format, args...))
}

// Seal hides the secrets in all files and bounds the whole: a file that does not fit any more is left out, while
// smaller ones after it may fit. So what is needed most is added first. It is called once, before the part leaves
// the node; what is added later is neither hidden nor bounded.
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

// Write writes the zip: a folder for each node, and the list of what was left out. The parts are sealed by now:
// nothing is hidden here. An error leaves a zip that is cut off. Names are made safe because other nodes have chosen
// them.
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

// safe makes a name that stays inside the folder into which somebody unpacks the zip, and that every system takes.
// It may map two names to one.
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

// last is the end of b, from the beginning of a line on. So no line is there in part; one line longer than n stays
// cut.
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
