// Package journal keeps the transitions of modules for people: one file of JSON lines for each module, which is turned
// over once when it is full. Nothing depends on it, so it is not synced, and a disk that is full or does not answer
// costs lines, never a transition.
package journal

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"duet/console/api"
)

// Journal is that of one module on this node. Its methods may be called by several goroutines. One goroutine
// writes; a second Journal of the same module would write between its lines.
type Journal struct {
	path string        // NAME.jsonl; what was turned over is NAME.jsonl.1
	over chan struct{} // closed when the last line is written

	mu    sync.Mutex
	lines chan line // nil after Close

	// Of the goroutine that writes.
	file *os.File // nil when it could not be turned over, until it can
	size int64
	torn bool // the file does not end with a whole line
}

// line is one to write, or a question whether those before it are written. The channel is the order: an answer to
// the question means that all lines before it were taken by the kernel, or lost.
type line struct {
	text    []byte
	written chan<- struct{} // closed then; nil: nobody asks
}

const (
	full    = 1 << 20  // bytes
	longest = 64 << 10 // bytes of a line that is read
	waiting = 2048     // lines, while the disk does not take them; more are lost
	patient = time.Second
)

// Open continues the journal of a module in dir, or begins it. The directory is made for its owner only. It waits
// for the disk, unlike what follows.
func Open(dir, module string) (*Journal, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make directory of journals: %w", err)
	}
	lines := make(chan line, waiting)
	j := &Journal{path: filepath.Join(dir, module+".jsonl"), lines: lines, over: make(chan struct{})}
	if err := j.open(); err != nil {
		return nil, err
	}
	go j.write(lines)
	return j, nil
}

// open opens the file for the writing goroutine, which alone calls it once that runs. A file may end within a line, or
// with zeroes, after a loss of power or on a disk that was full.
func (j *Journal) open() error {
	f, err := os.OpenFile(j.path, os.O_APPEND|os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("open journal: %w", err)
	}
	st, err := f.Stat()
	end := []byte{'\n'}
	if err == nil && st.Size() > 0 {
		_, err = f.ReadAt(end, st.Size()-1)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("open journal: %w", err), f.Close())
	}
	j.file, j.size, j.torn = f, st.Size(), end[0] != '\n'
	return nil
}

// Add has one transition written, if it can be. It waits for no disk. A line that finds no room, or comes after
// Close, is lost without a word.
func (j *Journal) Add(e api.LogEntry) {
	if b, err := json.Marshal(e); err == nil {
		j.put(line{text: append(b, '\n')})
	}
}

// put reports whether l was taken.
func (j *Journal) put(l line) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.lines == nil {
		return false
	}
	select {
	case j.lines <- l:
		return true
	default:
		return false
	}
}

// write is the goroutine that the disk may keep. Its end is that of lines: Close closes them, and what waits is
// written first.
func (j *Journal) write(lines <-chan line) {
	defer close(j.over)
	for l := range lines {
		if l.written != nil {
			close(l.written)
			continue
		}
		if j.ready() {
			j.append(l.text)
		}
	}
	if j.file != nil {
		_ = j.file.Close()
	}
}

// ready reports whether there is a file for the next line; if not the line is lost, as on a full disk, and the one
// after it tries again. A file is turned over before the line that finds it too large, and takes the place of the one
// before it: a journal has about twice full at most.
func (j *Journal) ready() bool {
	if j.file == nil && j.open() != nil {
		return false
	}
	if j.size <= full {
		return true
	}
	_ = j.file.Close()
	j.file = nil
	return os.Rename(j.path, j.path+".1") == nil && j.open() == nil
}

// append writes a line. What is left of one before that was cut short is ended first: that one is lost alone.
func (j *Journal) append(text []byte) {
	if j.torn {
		text = append([]byte{'\n'}, text...)
	}
	n, _ := j.file.Write(text)
	j.size += int64(n)
	if n > 0 {
		j.torn = text[n-1] != '\n'
	}
}

// settle waits a moment for what was added before. After patient it gives up: then Last tells what is in the files.
func (j *Journal) settle() {
	written := make(chan struct{})
	if !j.put(line{written: written}) {
		return
	}
	select {
	case <-written:
	case <-time.After(patient):
	}
}

// Last returns the newest n transitions, oldest first. It reads both files whole, waits for the disk, and may be
// called while lines are written. Lines that are no JSON, or longer than any, are skipped.
func (j *Journal) Last(n int) ([]api.LogEntry, error) {
	j.settle()
	var out []api.LogEntry
	for _, path := range []string{j.path + ".1", j.path} {
		f, err := os.Open(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read journal: %w", err)
		}
		all, err := read(f)
		_ = f.Close()
		if err != nil {
			return nil, fmt.Errorf("read journal: %w", err)
		}
		out = append(out, all...)
	}
	if len(out) > n {
		out = out[len(out)-n:]
	}
	return out, nil
}

// read returns the transitions of a file.
func read(f io.Reader) (out []api.LogEntry, err error) {
	in := bufio.NewReaderSize(f, longest)
	for within := false; ; { // within a line that does not fit
		text, more, err := in.ReadLine()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		var e api.LogEntry
		if !within && !more && json.Unmarshal(text, &e) == nil {
			out = append(out, e)
		}
		within = more
	}
}

// Close ends it; what is added later is lost. A disk that does not take what was added
// before is waited for a moment.
func (j *Journal) Close() error {
	j.mu.Lock()
	lines := j.lines
	j.lines = nil
	j.mu.Unlock()
	if lines == nil {
		return nil
	}
	close(lines)
	select {
	case <-j.over:
	case <-time.After(patient):
	}
	return nil
}
