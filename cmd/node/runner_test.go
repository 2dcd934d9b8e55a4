package node

import (
	"testing"

	"duet/appmodules"
)

// TestEveryKindRuns: what can be configured can be run.
func TestEveryKindRuns(t *testing.T) {
	for _, kind := range appmodules.Kinds() {
		if runners[appmodules.Kind(kind)].build == nil {
			t.Errorf("nobody runs modules of kind %s", kind)
		}
	}
}
