package node

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"duet/appmodules/engine"
	"duet/console/api"
)

// journal keeps the transitions of a module on this node: one JSON object a line,
// in a file that is turned over once at maxJournal. It is for people; nothing
// depends on it, so it is not synced.
type journal struct {
	path string
	node string

	mu   sync.Mutex
	file *os.File
	size int64
}

const maxJournal = 1 << 20 // bytes

func openJournal(dir, module, node string) (*journal, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make directory of journals: %w", err)
	}
	j := &journal{path: filepath.Join(dir, module+".jsonl"), node: node}
	return j, j.open()
}

func (j *journal) open() error {
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

// add writes one transition; a full disk costs the line, never the transition.
func (j *journal) add(t engine.Transition) {
	b, err := json.Marshal(api.LogEntry{Time: t.Time, Node: j.node, Module: t.Module, From: t.From, To: t.To, On: t.On, Why: t.Why})
	if err != nil {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.file == nil {
		return
	}
	if j.size > maxJournal {
		_ = j.file.Close()
		j.file = nil
		if os.Rename(j.path, j.path+".1") != nil || j.open() != nil {
			return
		}
	}
	n, _ := j.file.Write(append(b, '\n'))
	j.size += int64(n)
}

// last returns the newest n transitions, oldest first.
func (j *journal) last(n int) ([]api.LogEntry, error) {
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

func (j *journal) close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.file == nil {
		return nil
	}
	err := j.file.Close()
	j.file = nil
	return err
}
