package badgerlog

import (
	"context"
	"fmt"
	"log/slog"
	"strings"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
)

// memTable bounds one transaction to 15 % of itself: about 6,500 extents.
const memTable = 4 << 20

// maxValue keeps every value in the LSM tree: badger only logs a failed sync of
// its value log, so nothing may go there.
const maxValue = 256 << 10

// dbOptions: no compactors, because they would write at moments of their own
// choosing; tidy compacts instead. The stall limit must then be out of reach.
func dbOptions(dir string, log *slog.Logger) badger.Options {
	return badger.DefaultOptions(dir).WithSyncWrites(true).
		WithMemTableSize(memTable).WithNumMemtables(1).
		WithBaseTableSize(1 << 20).WithBaseLevelSize(4 << 20).
		WithNumCompactors(0).WithNumLevelZeroTablesStall(1 << 30).WithCompactL0OnClose(false).
		WithValueLogFileSize(1 << 20).WithValueThreshold(maxValue + 1).
		WithCompression(options.None).WithBlockCacheSize(0).WithIndexCacheSize(0).
		WithMetricsEnabled(false).WithDetectConflicts(false).
		WithChecksumVerificationMode(options.OnTableAndBlockRead).
		WithLogger(badgerLogger{log})
}

// badgerLogger passes badger's warnings on and drops its chatter.
type badgerLogger struct{ log *slog.Logger }

func (l badgerLogger) Errorf(f string, a ...any)   { l.print(slog.LevelError, f, a) }
func (l badgerLogger) Warningf(f string, a ...any) { l.print(slog.LevelWarn, f, a) }
func (l badgerLogger) Infof(string, ...any)        {}
func (l badgerLogger) Debugf(string, ...any)       {}

func (l badgerLogger) print(level slog.Level, f string, a []any) {
	l.log.Log(context.Background(), level, "badger: "+strings.TrimSpace(fmt.Sprintf(f, a...)))
}
