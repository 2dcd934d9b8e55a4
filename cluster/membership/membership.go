// Package membership keeps the configuration of the cluster on a node: durable in the node's
// directory, and at hand in memory for every dial, vote and heartbeat.
//
// Files: membership.go keeps it, checked.go is who may connect by it, meet.go how nodes come to know the same. What
// a change of the membership means is in package cluster, as pure functions; who makes one in package registrar.
package membership

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"duet/blockrepl/durable"
	"duet/cluster"
)

// File is the name of the configuration, a cluster.Config, in a node's directory.
const File = "cluster.json"

// ErrNoMember is returned for the directory of a node that is in no cluster.
var ErrNoMember = errors.New("run `duet cluster init` or `duet cluster join` on this node first")

// Load reads the configuration in a node's directory.
func Load(dir string) (cluster.Config, error) {
	var c cluster.Config
	b, err := os.ReadFile(filepath.Join(dir, File))
	if errors.Is(err, fs.ErrNotExist) {
		return c, fmt.Errorf("%s is not the directory of a member: %w", dir, ErrNoMember)
	}
	if err != nil {
		return c, fmt.Errorf("read cluster configuration: %w", err)
	}
	if err := json.Unmarshal(b, &c); err != nil {
		return c, fmt.Errorf("read cluster configuration %s: %w", filepath.Join(dir, File), err)
	}
	if _, ok := c.Member(c.Self); !ok {
		return c, fmt.Errorf("read cluster configuration: this node, %q, is not among its members", c.Self)
	}
	return c, nil
}

// Save writes the configuration into a node's directory, whole or not at all, durably. It
// holds the gossip keys, so only its owner may read it.
func Save(dir string, c cluster.Config) error {
	b, err := json.MarshalIndent(c, "", "  ")
	if err == nil {
		err = os.MkdirAll(dir, 0o700)
	}
	if err == nil {
		err = durable.WriteFile(filepath.Join(dir, File), append(b, '\n'))
	}
	if err != nil {
		return fmt.Errorf("save cluster configuration: %w", err)
	}
	return nil
}

// Book is the configuration of a running node. Any number of goroutines may use it.
type Book struct {
	dir  string
	save func(dir string, c cluster.Config) error // Save, but in tests

	change sync.Mutex // one change at a time; held while the disk is waited for
	now    atomic.Pointer[cluster.Config]
}

// Open reads the configuration of a node. One Book per directory and computer: two would overwrite each other's
// changes.
func Open(dir string) (*Book, error) {
	c, err := Load(dir)
	if err != nil {
		return nil, err
	}
	b := &Book{dir: dir, save: Save}
	b.now.Store(&c)
	return b, nil
}

// Config is the configuration as it is now. It never waits, not for a disk either. What it
// refers to is not changed by anybody.
func (b *Book) Config() cluster.Config { return *b.now.Load() }

// Change makes a change durable and then uses it, unless alter, which may not change what c refers to, returns
// false. It returns the configuration as it is then. Changes take turns. It blocks on the disk, and on the changes
// before it. After an error the old configuration is in use; what is on the disk may be the new one already, and is
// then what the next start reads. alter runs under the lock and must not call Change.
func (b *Book) Change(alter func(c *cluster.Config) bool) (cluster.Config, error) {
	b.change.Lock()
	defer b.change.Unlock()
	c := b.Config()
	if !alter(&c) {
		return b.Config(), nil
	}
	if err := b.save(b.dir, c); err != nil {
		return b.Config(), err
	}
	b.now.Store(&c)
	return c, nil
}
