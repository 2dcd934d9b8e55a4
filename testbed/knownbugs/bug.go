package main

import (
	"errors"
	"fmt"
	"io/fs"
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
	Source string // where it is known from
	Breaks string // what it breaks, in a few words
	By     Search
	Within uint64 // schedules in which it has to be found
	Edits  []Edit // the first that fits is made
}

// Edit is a change of one file. Before must be in it exactly once.
type Edit struct{ File, Before, After string }

// all is the table.
func all() []Bug { return slices.Concat(authority(), engines(), writePath(), copies()) }

// fit returns the file's text after the first edit whose Before is there once.
func (b Bug) fit(root string) (file, text string, err error) {
	var why []string
	for _, e := range b.Edits {
		src, err := os.ReadFile(filepath.Join(root, e.File))
		if errors.Is(err, fs.ErrNotExist) {
			why = append(why, e.File+" is not there")
			continue
		}
		if err != nil {
			return "", "", err
		}
		if n := strings.Count(string(src), e.Before); n != 1 {
			why = append(why, fmt.Sprintf("%s has %d of %q", e.File, n, e.Before))
			continue
		}
		return e.File, strings.Replace(string(src), e.Before, e.After, 1), nil
	}
	return "", "", fmt.Errorf("the bug does not fit the tree: %s", strings.Join(why, "; "))
}
