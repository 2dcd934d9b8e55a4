// Package journal keeps the transitions of modules for people: one file of JSON lines for each module, which is turned
// over once when it is full. Nothing depends on it, so it is not synced, and a full disk costs lines, never a transition.
package journal

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"duet/console/api"
)

// Journal is that of one module on this node. Its methods may be called by several goroutines.
type Journal struct {
	path string

	mu   sync.Mutex
	file *os.File // nil after Close, or when it could not be turned over
	size int64
}

const full = 1 << 20 // bytes

// Open continues the journal of a module in dir, or begins it.
func Open(dir, module string) (*Journal, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make directory of journals: %w", err)
	}
	j := &Journal{path: filepath.Join(dir, module+".jsonl")}
	if err := j.open(); err != nil {
		return nil, err
	}
	return j, nil
}

func (j *Journal) open() error {
	f, err := os.OpenFile(j.path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open journal: %w", err)
	}
	st, err := f.Stat()
	if err != nil {
		return errors.Join(fmt.Errorf("open journal: %w", err), f.Close())
	}
	j.file, j.size = f, st.Size()
	return nil
}

// Add writes one transition, if it can.
func (j *Journal) Add(e api.LogEntry) {
	b, err := json.Marshal(e)
	if err != nil {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.file == nil {
		return
	}
	if j.size > full {
		_ = j.file.Close()
		j.file = nil
		if os.Rename(j.path, j.path+".1") != nil || j.open() != nil {
			return
		}
	}
	n, _ := j.file.Write(append(b, '\n'))
	j.size += int64(n)
}

// Last returns the newest n transitions, oldest first.
func (j *Journal) Last(n int) ([]api.LogEntry, error) {
	var out []api.LogEntry
	for _, path := range []string{j.path + ".1", j.path} {
		f, err := os.Open(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read journal: %w", err)
		}
		lines := bufio.NewScanner(f)
		lines.Buffer(nil, 64<<10)
		for lines.Scan() {
			var e api.LogEntry
			if json.Unmarshal(lines.Bytes(), &e) == nil { // a torn last line is skipped
				out = append(out, e)
			}
		}
		_ = f.Close()
	}
	if len(out) > n {
		out = out[len(out)-n:]
	}
	return out, nil
}

// Close ends it; what is added later is lost.
func (j *Journal) Close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.file == nil {
		return nil
	}
	err := j.file.Close()
	j.file = nil
	return err
}
