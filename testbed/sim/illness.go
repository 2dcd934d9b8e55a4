package sim

import (
	"time"

	"duet/blockrepl"
)

// illness is what a disk does wrong.
type illness struct{}

// lands is the block that a write to block reaches.
func (i *illness) lands(block int) int { return block }

// mend ends all that is wrong.
func (d *disk) mend() {}

// strike lets an operation take its time, and fail.
func (d *disk) strike(op blockrepl.Op, block int, base time.Duration, g *gate) error {
	time.Sleep(base)
	return d.failed()
}
