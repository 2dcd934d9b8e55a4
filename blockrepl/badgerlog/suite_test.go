package badgerlog

import (
	"testing"

	"duet/blockrepl"
	"duet/blockrepl/blocktest"
)

func TestDirtyLogSuite(t *testing.T) {
	blocktest.DirtyLog(t, func(t *testing.T) (blockrepl.DirtyLog, func() blockrepl.DirtyLog) {
		s := open(t, t.TempDir())
		return s.Log("v"), func() blockrepl.DirtyLog {
			s = reopen(t, s)
			return s.Log("v")
		}
	})
}
