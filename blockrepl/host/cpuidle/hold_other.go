//go:build !linux

package cpuidle

import (
	"errors"
	"io"
)

// Hold is not offered by this system.
func Hold() (io.Closer, error) {
	return nil, errors.ErrUnsupported
}
