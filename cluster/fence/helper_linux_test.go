package fence

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"duet/cluster/clustertest"
)

// journal is a log that a test can read.
type journal struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.buf.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.buf.String()
}

// shop makes agents out of shell scripts, all in one folder.
type shop struct {
	t   *testing.T
	dir string
	log *journal
	*Fencer
}

func newShop(t *testing.T) *shop {
	t.Helper()
	s := &shop{t: t, dir: t.TempDir(), log: &journal{}}
	s.Fencer = New(Config{Path: []string{s.dir}, Logger: slog.New(slog.NewTextHandler(s.log, nil))})
	return s
}

// agent writes the script fence_NAME, in which $action and $options are what it read and $dir is the
// shop's folder; every action is recorded in the file "done".
func (s *shop) agent(name, script string) Device {
	s.t.Helper()
	text := fmt.Sprintf(`#!/bin/sh
dir=%s
options=$(cat)
action=$(echo "$options" | sed -n s/^action=//p)
echo %s $action >> $dir/done
%s
`, s.dir, name, script)
	if err := clustertest.WriteProgram(filepath.Join(s.dir, "fence_"+name), text); err != nil {
		s.t.Fatal(err)
	}
	return Device{Name: name, Agent: "fence_" + name, Options: Options{"ip": "10.0.9.1", "password": "hunter2"}}
}

// read returns a file of the shop's folder, with its lines joined by commas.
func (s *shop) read(name string) string {
	s.t.Helper()
	text, err := os.ReadFile(filepath.Join(s.dir, name))
	if err != nil && !os.IsNotExist(err) {
		s.t.Fatal(err)
	}
	return strings.Join(strings.Split(strings.TrimSpace(string(text)), "\n"), ", ")
}
