package check

import (
	"fmt"
	"maps"
	"slices"
)

// Flush is an acknowledged flush: every write that had returned before its Call is durable.
type Flush struct {
	Call   int64 // nanoseconds, on the clock of Op
	Return int64
}

// Survived compares what blocks hold after a power cut of every host with what was promised to be durable: found is the
// value of each block, ops and flushes are from before. A block may hold the newest durable value or any later one,
// acknowledged or not, and never an older one.
func Survived(ops []Op, flushes []Flush, found map[uint64]uint64) []Violation {
	writes := map[uint64][]Op{}
	for _, op := range ops {
		if op.Write {
			writes[op.Block] = append(writes[op.Block], op)
		}
	}
	flushed := int64(-1 << 62) // writes that returned before this are durable
	for _, f := range flushes {
		flushed = max(flushed, f.Call)
	}
	var all []Violation
	for _, block := range slices.Sorted(maps.Keys(found)) {
		var durable Op // the latest begun of those that are durable
		for _, w := range writes[block] {
			if !w.Unknown && (w.FUA || w.Return < flushed) && (!durable.Write || w.Call > durable.Call) {
				durable = w
			}
		}
		held := func(w Op) bool {
			return w.Value == found[block] && (w.Unknown || !durable.Write || w.Return >= durable.Call)
		}
		if !slices.ContainsFunc(writes[block], held) && (durable.Write || found[block] != 0) {
			all = append(all, Violation{Lost, fmt.Sprintf(
				"block %d holds %d after the power cut, but %d was durable", block, found[block], durable.Value)})
		}
	}
	return all
}
