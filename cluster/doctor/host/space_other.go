//go:build !linux

package host

import "duet/cluster/doctor"

// Spaces are not known on this system.
func Spaces(string, []string) []doctor.Space { return nil }

// fileLimit is not known on this system.
func fileLimit() uint64 { return 0 }
