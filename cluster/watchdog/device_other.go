//go:build !linux

package watchdog

import "errors"

// open refuses: the watchdog of other systems is not known.
func open(string) (timer, error) { return nil, errors.ErrUnsupported }
