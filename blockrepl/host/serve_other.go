//go:build !linux

package host

import (
	"errors"
	"log/slog"
)

// Serve fails: this system has no FUSE.
func Serve(string, string, *slog.Logger) error { return errors.ErrUnsupported }

// IntoWritePath fails: there is nothing to ask for.
func IntoWritePath() error { return errors.ErrUnsupported }
