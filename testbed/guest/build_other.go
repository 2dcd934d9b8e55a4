//go:build !linux

package guest

import (
	"context"
	"errors"
	"fmt"
)

// Build is not supported on this system: the guest's kernel comes from Debian's package tools.
func Build(context.Context, string, string) (Files, error) {
	return Files{}, fmt.Errorf("build guest: %w", errors.ErrUnsupported)
}
