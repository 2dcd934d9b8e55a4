package badgerlog

import (
	"golang.org/x/sys/windows"
)

func freeBytes(dir string) (int64, error) {
	p, err := windows.UTF16PtrFromString(dir)
	if err != nil {
		return 0, err
	}
	var free uint64
	if err := windows.GetDiskFreeSpaceEx(p, &free, nil, nil); err != nil {
		return 0, err
	}
	return int64(free), nil
}

// probeLock: badger's own lock file is exclusive on Windows, and Open reports it.
func probeLock(string) error { return nil }

func reserve(path string, size int) error { return writeNoise(path, size) }
