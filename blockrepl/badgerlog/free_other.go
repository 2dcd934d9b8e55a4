//go:build unix && !linux

package badgerlog

import "errors"

func freeBytes(string) (int64, error) {
	return 0, errors.New("free space: not supported on this system")
}

func reserve(path string, size int) error { return writeNoise(path, size) }
