//go:build unix

package console

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"time"
)

// socket is a unix socket at a path.
type socket struct {
	net.Listener
	path string
	file fs.FileInfo // that the socket is
}

// openSocket listens at path, mode 0600. The socket is made in a folder of its
// own and moved into place, so that at no instant others may open it and one
// left behind by a crash is replaced. One that somebody answers at is left alone, and so is what is no socket. The
// folder is beside it, since a rename does not cross file systems; its name is short, as the path of a socket has
// 108 bytes.
func openSocket(path string) (*socket, error) {
	if c, err := net.DialTimeout("unix", path, time.Second); err == nil {
		c.Close()
		return nil, fmt.Errorf("%s: another duetd serves here", path)
	}
	if info, err := os.Lstat(path); err == nil && info.Mode().Type() != fs.ModeSocket {
		return nil, fmt.Errorf("%s: is no socket, and is left as it is", path)
	}
	folder, err := os.MkdirTemp(filepath.Dir(path), ".s") // mode 0700
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(folder)
	made := filepath.Join(folder, "s")
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: made, Net: "unix"})
	if err != nil {
		return nil, err
	}
	ln.SetUnlinkOnClose(false) // its name changes
	err = os.Chmod(made, 0o600)
	var file fs.FileInfo
	if err == nil {
		file, err = os.Lstat(made)
	}
	if err == nil {
		err = os.Rename(made, path)
	}
	if err != nil {
		return nil, errors.Join(err, ln.Close())
	}
	return &socket{ln, path, file}, nil
}

// remove takes the path away, unless another duetd has moved its own socket there. It is called while the listener is
// open: nobody takes the place of one that answers.
func (s *socket) remove() error {
	file, err := os.Lstat(s.path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !os.SameFile(file, s.file) {
		return nil
	}
	if err != nil {
		return err
	}
	return os.Remove(s.path)
}

// readableByOthers: group or others have any right on it.
func readableByOthers(info fs.FileInfo) bool { return info.Mode().Perm()&0o077 != 0 }
