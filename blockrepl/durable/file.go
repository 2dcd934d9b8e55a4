package durable

import (
	"errors"
	"os"
	"path/filepath"
)

// WriteFile puts data under path, which only its owner may read: whole or not at all. It
// is durable when WriteFile returns. It uses the name path+".new" on the way, where an error leaves what
// was written so far; the next call begins it anew. The data must reach the disk before the name does: a rename
// that is durable first would leave an empty file.
func WriteFile(path string, data []byte) error {
	tmp := path + ".new"
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	return Rename(tmp, path)
}

// Rename gives a file or directory another name in the same directory, durably. A file that has the name is replaced.
// Only one directory is synced, so from another one the old name may come back after a power loss.
func Rename(from, to string) error {
	if err := os.Rename(from, to); err != nil {
		return err
	}
	return SyncDir(filepath.Dir(to))
}

// Remove removes a file, durably when it returns nil: a loss of power does not bring it back. One that is not there is
// fs.ErrNotExist, like that of os.Remove.
func Remove(path string) error {
	if err := os.Remove(path); err != nil {
		return err
	}
	return SyncDir(filepath.Dir(path))
}
