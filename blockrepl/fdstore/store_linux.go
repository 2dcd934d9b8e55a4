package fdstore

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"golang.org/x/sys/unix"
)

// Store keeps listening unix sockets by the path that leads to them. Its methods may be called by several
// goroutines. Take, Keep and Drop may wait for the service manager, for at most tellTime each word, with mu held.
type Store struct {
	manager string // socket of the service manager; "": there is none
	log     *slog.Logger

	mu   sync.Mutex
	kept map[string]entry // by path
}

// entry is one kept socket.
type entry struct {
	file  *os.File // listens as long as it is open
	inode uint64   // of the socket's file: another one may lie at the path by now
}

// tellTime bounds a word to the service manager, which is busy at times. A volume that is being offered waits for it.
const tellTime = time.Second

// Open takes over the sockets that an earlier run of this service has kept. It is called once in a process, early: it
// clears the environment of them, so that no child takes them for its own. What is not led to by its path any more
// is let go.
func Open(log *slog.Logger) *Store {
	s := &Store{manager: os.Getenv("NOTIFY_SOCKET"), log: log, kept: map[string]entry{}}
	for _, f := range activation.Files(true) { // true: unset the environment
		path, inode, ok := parseName(f.Name())
		if ok && inode == inodeOf(path) {
			s.kept[path] = entry{f, inode}
			continue
		}
		silence(f)
		f.Close()
		s.tell("FDSTOREREMOVE=1\nFDNAME="+f.Name(), nil)
	}
	return s
}

// Paths lists what is kept.
func (s *Store) Paths() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]string, 0, len(s.kept))
	for path := range s.kept {
		out = append(out, path)
	}
	slices.Sort(out)
	return out
}

// Take returns a listener on the socket that is kept for path, or nil if there is none or the path leads elsewhere by
// now. The caller closes it; the socket is kept on, with what waits in its backlog. What is of no use is let go, so
// that the caller can make a new one and Keep it.
func (s *Store) Take(path string) *net.UnixListener {
	s.mu.Lock()
	defer s.mu.Unlock()
	have, ok := s.kept[path]
	if !ok {
		return nil
	}
	if have.inode == inodeOf(path) {
		ln, err := net.FileListener(have.file)
		if unixLn, ok := ln.(*net.UnixListener); ok {
			return unixLn
		}
		if err == nil {
			err = errors.Join(errors.New("it is no unix socket"), ln.Close())
		}
		s.log.Warn("a kept socket is of no use", "socket", path, "err", err)
	}
	s.drop(path)
	return nil
}

// Keep keeps the socket of ln, whose file lies at path, until Drop: it listens on when ln is closed and, under a
// service manager, when this process ends. What was kept for path before is cut off, even if Keep fails then.
// A service manager that does not answer is no error: the socket then ends with this process.
func (s *Store) Keep(path string, ln *net.UnixListener) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drop(path)
	inode := inodeOf(path)
	if inode == 0 {
		return fmt.Errorf("keep %s: it is no socket", path)
	}
	file, err := ln.File()
	if err != nil {
		return fmt.Errorf("keep %s: %w", path, err)
	}
	s.kept[path] = entry{file, inode}
	s.tell("FDSTORE=1\nFDNAME="+formatName(path, inode), file)
	return nil
}

// Drop lets the socket of path go: who waits for it is cut off, and who comes is refused. It does nothing if
// there is none.
func (s *Store) Drop(path string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drop(path)
}

// drop is Drop; mu is held.
func (s *Store) drop(path string) {
	have, ok := s.kept[path]
	if !ok {
		return
	}
	delete(s.kept, path)
	silence(have.file)
	have.file.Close()
	s.tell("FDSTOREREMOVE=1\nFDNAME="+formatName(path, have.inode), nil)
}

// silence ends the listening of a socket in every process that has it: the service manager closes its own copy when
// it gets round to it, and until then whoever comes would wait for nobody, and the next server take the path for
// served.
func silence(file *os.File) {
	raw, err := file.SyscallConn()
	if err != nil {
		return // closed
	}
	_ = raw.Control(func(fd uintptr) { _ = unix.Shutdown(int(fd), unix.SHUT_RDWR) }) // best effort: the close follows
}

// tell says something to the service manager, and hands it a file if there is one. Without its help a socket ends
// with the process, which costs guests a longer pause and nothing else.
func (s *Store) tell(what string, file *os.File) {
	if s.manager == "" {
		return
	}
	if err := tell(s.manager, what, file); err != nil {
		s.log.Warn("systemd cannot be told which sockets to keep: after a restart VMs may wait up to 16 s for their disks",
			"err", err)
	}
}

func tell(manager, what string, file *os.File) error {
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: manager, Net: "unixgram"})
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetWriteDeadline(time.Now().Add(tellTime)); err != nil {
		return err
	}
	if file == nil {
		_, err = conn.Write([]byte(what))
		return err
	}
	// Not file.Fd(): it would make the socket block for everybody who has it.
	raw, err := file.SyscallConn()
	if err != nil {
		return err
	}
	ctl := raw.Control(func(fd uintptr) { err = send(conn, what, int(fd)) })
	return errors.Join(ctl, err)
}

// send is a write with a file descriptor, which package net has for sockets that are not connected only.
func send(conn *net.UnixConn, what string, fd int) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	ctl := raw.Write(func(to uintptr) bool {
		err = unix.Sendmsg(int(to), []byte(what), unix.UnixRights(fd), nil, unix.MSG_NOSIGNAL)
		return !errors.Is(err, unix.EAGAIN)
	})
	return errors.Join(ctl, err)
}

// formatName makes the name of a socket in the store. It may hold neither colons nor anything but ASCII, and at most
// 255 characters (sd_notify(3), FDNAME). The number of the socket's file is in it so that the next run can tell
// whether the path still leads to this very socket.
func formatName(path string, inode uint64) string {
	escaped := strings.ReplaceAll((&url.URL{Path: path}).EscapedPath(), ":", "%3A")
	return strconv.FormatUint(inode, 10) + "@" + escaped
}

func parseName(name string) (path string, inode uint64, ok bool) {
	number, escaped, _ := strings.Cut(name, "@")
	inode, err := strconv.ParseUint(number, 10, 64)
	if err != nil {
		return "", 0, false
	}
	path, err = url.PathUnescape(escaped)
	return path, inode, err == nil && path != ""
}

// inodeOf is the number of the socket's file at path; 0 if there is none.
func inodeOf(path string) uint64 {
	info, err := os.Lstat(path)
	if err != nil || info.Mode()&os.ModeSocket == 0 {
		return 0
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0
	}
	return st.Ino
}
