package divergence

import (
	"errors"
	"fmt"
	"io"
	"os"
)

// file is one of the two files a version writes while it is open; tests lose power under it.
type file interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	// Sync makes everything written before it durable.
	Sync() error
	Size() (int64, error)
}

// osFile is a real one.
type osFile struct{ *os.File }

func (f osFile) Sync() error { return dataSync(f.File) }

func (f osFile) Size() (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// writeDurable makes a file that must not exist yet, of size bytes beginning with b. Its name is not durable: the
// caller syncs the directory.
func writeDurable(path string, b []byte, size int64) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := makeSparse(f); err != nil {
		return fmt.Errorf("make %s sparse: %w", path, err)
	}
	if err := f.Truncate(size); err != nil {
		return err
	}
	if _, err := f.WriteAt(b, 0); err != nil {
		return err
	}
	return f.Sync()
}
