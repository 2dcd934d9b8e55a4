package node

import (
	"testing"

	"duet/appmodules"
)

// TestEveryKindRuns: what can be configured can be run.
func TestEveryKindRuns(t *testing.T) {
	all := (&Node{}).newKinds()
	for _, kind := range appmodules.Kinds() {
		if all[appmodules.Kind(kind)].Build == nil {
			t.Errorf("nobody runs modules of kind %s", kind)
		}
		if k := all[appmodules.Kind(kind)]; appmodules.Kind(kind).Defined() != (k.Define != nil && k.Undefine != nil) {
			t.Errorf("kind %s: who stores its definition?", kind)
		}
	}
}
