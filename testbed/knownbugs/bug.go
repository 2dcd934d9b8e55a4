package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Search is how a bug is found again; see TestHunt of testbed/sim.
type Search string

// The ways.
const (
	Model               Search = "model"                // random schedules, the model of the byte path
	Production          Search = "production"           // random schedules, the real one
	ModelScenarios      Search = "model-scenarios"      // those of testbed/sim/testdata
	ProductionScenarios Search = "production-scenarios" // the same, over the real byte path
	Storage             Search = "storage"              // random faults of disks, the real byte path
	DiskScenarios       Search = "disk-scenarios"       // those of testdata/disks, the real byte path
	ProofScenarios      Search = "proof-scenarios"      // those of testdata/proof, the real byte path
)

// The searches of the packages themselves.
const (
	Rules   Search = "rules"   // every order of events of a small model over package cluster
	Crashes Search = "crashes" // random ends of nodes and links around the real Primary and Secondary, package blockrepl
)

// Bug is a bug that was there once, here or elsewhere.
type Bug struct {
	Name   string
	Source string // where it is known from: a project and its number, or our own commit
	Breaks string // what it breaks, in a few words
	By     Search
	Within uint64 // schedules in which it has to be found, or every
	Edit   Edit
	Also   []Edit // of other files: what would guard against it a second time
}

// edits are all of them.
func (b Bug) edits() []Edit { return append([]Edit{b.Edit}, b.Also...) }

// every is Within for scenarios: all that there are.
const every = 1 << 32

// Edit is a change of one file. Before must be in it exactly once. A comment within Before belongs to it.
type Edit struct{ File, Before, After string }

// all is the table.
func all() []Bug { return slices.Concat(authority(), engines(), writePath(), copies()) }

// fit returns the file's text after the edit, below root. The error says which file, and how often Before is in
// it.
func (e Edit) fit(root string) (text string, err error) {
	src, err := os.ReadFile(filepath.Join(root, e.File))
	if err != nil {
		return "", fmt.Errorf("the bug does not fit the tree: %w", err)
	}
	if n := strings.Count(string(src), e.Before); n != 1 {
		return "", fmt.Errorf("the bug does not fit the tree: %s has %d of %q", e.File, n, e.Before)
	}
	return strings.Replace(string(src), e.Before, e.After, 1), nil
}
