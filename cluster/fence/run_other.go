//go:build !linux

package fence

import (
	"context"
	"errors"
	"fmt"
	"io"
)

// job is one run of an agent.
type job struct {
	program string
	input   string
	path    []string
}

// execute refuses: fence agents exist for Linux only.
func execute(context.Context, job, io.Writer, io.Writer) (int, error) {
	return -1, fmt.Errorf("fence agents: %w", errors.ErrUnsupported)
}
