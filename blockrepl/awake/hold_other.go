//go:build !linux

package awake

import (
	"errors"
	"io"
)

// Hold is not offered by this system.
func Hold() (io.Closer, error) {
	return nil, errors.ErrUnsupported
}
