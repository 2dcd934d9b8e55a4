package pki

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"duet/cluster"
)

// The names in a node's directory.
const (
	ConfigFile = "cluster.json" // a cluster.Config
	Folder     = "pki"          // the identity
)

// ErrNoMember is returned for the directory of a node that is in no cluster.
var ErrNoMember = errors.New("run `duet cluster init` or `duet cluster join` on this node first")

// LoadConfig reads the cluster configuration in a node's directory.
func LoadConfig(dir string) (cluster.Config, error) {
	var c cluster.Config
	b, err := os.ReadFile(filepath.Join(dir, ConfigFile))
	if errors.Is(err, fs.ErrNotExist) {
		return c, fmt.Errorf("%s is not the directory of a member: %w", dir, ErrNoMember)
	}
	if err != nil {
		return c, fmt.Errorf("read cluster configuration: %w", err)
	}
	if err := json.Unmarshal(b, &c); err != nil {
		return c, fmt.Errorf("read cluster configuration %s: %w", filepath.Join(dir, ConfigFile), err)
	}
	if _, ok := c.Member(c.Self); !ok {
		return c, fmt.Errorf("read cluster configuration: this node, %q, is not among its members", c.Self)
	}
	return c, nil
}

// SaveConfig writes the cluster configuration into a node's directory, whole or
// not at all, durably. It holds the gossip keys, so only its owner may read it.
func SaveConfig(dir string, c cluster.Config) error {
	b, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return fmt.Errorf("encode cluster configuration: %w", err)
	}
	if err := store(dir, file{ConfigFile, append(b, '\n')}); err != nil {
		return fmt.Errorf("save cluster configuration: %w", err)
	}
	return nil
}
