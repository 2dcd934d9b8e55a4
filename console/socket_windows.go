package console

import (
	"io/fs"
	"net"
)

// socket is a unix socket at a path.
type socket struct{ net.Listener }

// openSocket listens at path. Who may open it is set by the folder's access list.
func openSocket(path string) (*socket, error) {
	ln, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	return &socket{ln}, nil
}

// remove has nothing to do: closing took the path away.
func (s *socket) remove() error { return nil }

// readableByOthers is not told by mode bits on Windows; the folder's access list protects the file.
func readableByOthers(fs.FileInfo) bool { return false }
