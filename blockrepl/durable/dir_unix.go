//go:build unix

package durable

import (
	"errors"
	"os"
)

// SyncDir makes the names in dir durable: files made, renamed and removed. Syncing a new file does not make its name
// durable; the content of files is not what this is about.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
