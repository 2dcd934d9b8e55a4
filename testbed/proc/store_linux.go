package proc

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Store stands in for systemd's file descriptor store of one service: it keeps what the service hands it
// (FDSTORE=1) and passes that to each later start of a Spec that has it. Like systemd's it outlives the service
// but not the host (Clear). Unlike it, it has no limit and looks at no sender.
type Store struct {
	path string
	conn *net.UnixConn
	read chan struct{} // closed when nothing is read any more

	mu   sync.Mutex
	kept []*os.File // by their names
}

// NewStore makes a store whose socket lies at path, which must be the same inside the node and outside and short enough
// for a unix socket.
func NewStore(path string) (*Store, error) {
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return nil, fmt.Errorf("make store of file descriptors: %w", err)
	}
	s := &Store{path: path, conn: conn, read: make(chan struct{})}
	go s.listen()
	return s, nil
}

// Close forgets everything.
func (s *Store) Close() error {
	err := s.conn.Close()
	<-s.read
	s.Clear()
	if err != nil {
		return fmt.Errorf("close store of file descriptors: %w", err)
	}
	return nil
}

// Clear forgets what is kept, as a host does that is switched off.
func (s *Store) Clear() { s.remove(func(string) bool { return true }) }

// Names are those of what is kept.
func (s *Store) Names() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]string, len(s.kept))
	for i, f := range s.kept {
		out[i] = f.Name()
	}
	return out
}

func (s *Store) remove(which func(name string) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var left []*os.File
	for _, f := range s.kept {
		if which(f.Name()) {
			f.Close()
		} else {
			left = append(left, f)
		}
	}
	s.kept = left
}

// listen takes the words of the service until Close.
func (s *Store) listen() {
	defer close(s.read)
	text, rights := make([]byte, 4096), make([]byte, unix.CmsgSpace(64*4))
	for {
		n, oobn, _, _, err := s.conn.ReadMsgUnix(text, rights)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			s.handle(string(text[:n]), rights[:oobn])
		}
	}
}

func (s *Store) handle(text string, rights []byte) {
	said := map[string]string{}
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		said[key] = value
	}
	var files []*os.File
	messages, _ := unix.ParseSocketControlMessage(rights) // the kernel made it
	for i := range messages {
		fds, _ := unix.ParseUnixRights(&messages[i])
		for _, fd := range fds {
			unix.CloseOnExec(fd)
			files = append(files, os.NewFile(uintptr(fd), said["FDNAME"]))
		}
	}
	if said["FDSTOREREMOVE"] == "1" {
		s.remove(func(name string) bool { return name == said["FDNAME"] })
	}
	if said["FDSTORE"] != "1" {
		for _, f := range files {
			f.Close()
		}
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kept = append(s.kept, files...)
}

// extend has a process find the store and what it keeps. The files stay the store's and count until the process has
// begun; the caller holds mu until then.
func (s *Store) extend(spec Spec) (Spec, []*os.File) {
	env := append([]string{"NOTIFY_SOCKET=" + s.path}, spec.Env...)
	if len(s.kept) == 0 {
		spec.Env = env
		return spec, nil
	}
	names := make([]string, len(s.kept))
	for i, f := range s.kept {
		names[i] = f.Name()
	}
	spec.Env = append(env, "LISTEN_FDS="+strconv.Itoa(len(s.kept)), "LISTEN_FDNAMES="+strings.Join(names, ":"))
	// The process has to find its own number, as its namespace has it, in its environment.
	spec.Args = append([]string{"-c", `export LISTEN_PID=$$; exec "$@"`, "sh", spec.Path}, spec.Args...)
	spec.Path = "/bin/sh"
	return spec, s.kept
}
