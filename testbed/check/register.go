package check

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/anishathalye/porcupine"
)

// Op is one read or write of a block as its caller saw it. All times are on one monotonic clock.
type Op struct {
	Client int
	Block  uint64
	Write  bool
	Value  uint64 // a hash of the content written or read; 0 is a block that was never written
	Call   int64  // nanoseconds
	Return int64  // nanoseconds, not before Call
	// Unknown says that no answer or an error came. Such a write may have happened at any time after Call, or never;
	// such a read is worth nothing.
	Unknown bool
	// FUA says that the acknowledgement of this write means that it is durable.
	FUA bool
}

var (
	// ErrNotLinearizable is returned when no order of the operations explains what the reads saw.
	ErrNotLinearizable = errors.New("history is not linearizable")
	// ErrUndecided is returned when the search did not end in time.
	ErrUndecided = errors.New("history is too long to decide in time")
)

// Linearizable judges each block as one register: every read must return the newest write in some order that
// respects real time. The error wraps ErrNotLinearizable or ErrUndecided and names the first such block; timeout
// is per block. ErrUndecided says nothing of the history but that it is too long.
func Linearizable(ops []Op, timeout time.Duration) error {
	blocks := map[uint64][]porcupine.Operation{}
	for _, op := range ops {
		ret := op.Return
		if op.Unknown {
			if !op.Write {
				continue
			}
			ret = math.MaxInt64
		}
		blocks[op.Block] = append(blocks[op.Block], porcupine.Operation{
			ClientId: op.Client, Input: input{op.Write, op.Value}, Output: op.Value, Call: op.Call, Return: ret,
		})
	}
	for _, block := range slices.Sorted(maps.Keys(blocks)) {
		switch porcupine.CheckOperationsTimeout(register(), blocks[block], timeout) {
		case porcupine.Illegal:
			return fmt.Errorf("block %d, %d operations: %w", block, len(blocks[block]), ErrNotLinearizable)
		case porcupine.Unknown:
			return fmt.Errorf("block %d, %d operations: %w", block, len(blocks[block]), ErrUndecided)
		}
	}
	return nil
}

type input struct {
	write bool
	value uint64
}

// register is a single value that begins as 0.
func register() porcupine.Model {
	return porcupine.Model{
		Init: func() any { return uint64(0) },
		Step: func(state, in, out any) (bool, any) {
			if op := in.(input); op.write {
				return true, op.value
			}
			return state == out, state
		},
	}
}
