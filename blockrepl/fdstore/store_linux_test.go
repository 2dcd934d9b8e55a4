package fdstore_test

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"duet/blockrepl/fdstore"
)

// servePath is set for the child that serves one client of a kept socket.
const servePath = "DUET_FDSTORE_SERVE"

func TestMain(m *testing.M) {
	if path := os.Getenv(servePath); path != "" {
		serveOne(path)
		return
	}
	goleak.VerifyTestMain(m)
}

// serveOne is the next run of a daemon: it greets who has waited.
func serveOne(path string) {
	s := fdstore.Open(slog.New(slog.NewTextHandler(os.Stderr, nil)))
	ln := s.Take(path)
	if ln == nil || os.Getenv("LISTEN_FDS") != "" {
		panic("nothing is kept for " + path + ", or it is still in the environment")
	}
	c, err := ln.Accept()
	if err == nil {
		_, err = c.Write([]byte("served by the next run"))
	}
	if err != nil {
		panic(err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// place is a path that is short enough for a socket, with a character that a name in the store may not have.
func place(t *testing.T) string {
	dir, err := os.MkdirTemp("", "fds:ü")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "vda.sock")
}

func listen(t *testing.T, path string) *net.UnixListener {
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	must(t, err)
	ln.SetUnlinkOnClose(false)
	return ln
}

func dial(t *testing.T, path string) net.Conn {
	t.Helper()
	c, err := net.Dial("unix", path)
	must(t, err)
	t.Cleanup(func() { c.Close() })
	must(t, c.SetReadDeadline(time.Now().Add(10*time.Second)))
	return c
}

func open(t *testing.T, manager string) *fdstore.Store {
	t.Setenv("NOTIFY_SOCKET", manager)
	return fdstore.Open(slog.New(slog.NewTextHandler(t.Output(), nil)))
}

// TestStore: a kept socket listens until it is dropped, whoever closes the listeners on it.
func TestStore(t *testing.T) {
	path := place(t)
	s := open(t, "")
	if s.Take(path) != nil {
		t.Error("something is kept from the beginning")
	}
	ln := listen(t, path)
	must(t, s.Keep(path, ln))
	must(t, ln.Close())
	waiting := dial(t, path)

	again := s.Take(path)
	if again == nil {
		t.Fatal("nothing is kept")
	}
	c, err := again.Accept()
	must(t, err)
	must(t, errors.Join(c.Close(), again.Close()))
	if _, err := waiting.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("who waited was not served: %v", err)
	}

	waiting = dial(t, path)
	if got := s.Paths(); !slices.Equal(got, []string{path}) {
		t.Errorf("kept are %q", got)
	}
	s.Drop(path)
	s.Drop(path)
	if _, err := waiting.Read(make([]byte, 1)); !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("who waits for a dropped socket: %v", err)
	}
	if _, err := net.Dial("unix", path); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("who comes to a dropped socket: %v", err)
	}
	if got := s.Paths(); len(got) > 0 || s.Take(path) != nil {
		t.Errorf("kept are %q", got)
	}
}

// TestStoreOfAnotherSocket: what the path does not lead to any more is of no use.
func TestStoreOfAnotherSocket(t *testing.T) {
	for name, replace := range map[string]func(path string) error{
		"gone":      os.Remove,
		"no socket": func(path string) error { return errors.Join(os.Remove(path), os.WriteFile(path, nil, 0o600)) },
		"another": func(path string) error {
			listen(t, path+".new").Close()
			return os.Rename(path+".new", path)
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := place(t)
			s := open(t, "")
			ln := listen(t, path)
			must(t, s.Keep(path, ln))
			must(t, ln.Close())
			must(t, replace(path))
			if ln := s.Take(path); ln != nil {
				ln.Close()
				t.Error("it was taken")
			}
			if got := s.Paths(); len(got) > 0 {
				t.Errorf("kept are %q", got)
			}
		})
	}
	if err := open(t, "").Keep("/nowhere", listen(t, place(t))); err == nil {
		t.Error("a socket was kept under a path that does not lead to it")
	}
}

// manager stands in for systemd: it hears one word at a time.
type manager struct {
	path string
	conn *net.UnixConn
}

func newManager(t *testing.T) manager {
	path := filepath.Join(filepath.Dir(place(t)), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	must(t, err)
	t.Cleanup(func() { conn.Close() })
	must(t, conn.SetReadDeadline(time.Now().Add(10*time.Second)))
	return manager{path, conn}
}

// hears returns what is said and the file that comes with it, if one does.
func (m manager) hears(t *testing.T) (string, *os.File) {
	t.Helper()
	text, rights := make([]byte, 512), make([]byte, 64)
	n, oobn, _, _, err := m.conn.ReadMsgUnix(text, rights)
	must(t, err)
	if oobn == 0 {
		return string(text[:n]), nil
	}
	messages, err := unix.ParseSocketControlMessage(rights[:oobn])
	must(t, err)
	fds, err := unix.ParseUnixRights(&messages[0])
	must(t, err)
	f := os.NewFile(uintptr(fds[0]), "kept")
	t.Cleanup(func() { f.Close() })
	return string(text[:n]), f
}

// TestNextRun: the socket of a run that ended lives with the service manager, and who has connected meanwhile is served
// by the next one.
func TestNextRun(t *testing.T) {
	path, m := place(t), newManager(t)
	s := open(t, m.path)
	ln := listen(t, path)
	must(t, s.Keep(path, ln))
	said, file := m.hears(t)
	name, ok := strings.CutPrefix(said, "FDSTORE=1\nFDNAME=")
	if !ok || file == nil || len(name) > 255 ||
		strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r > '~' || r == ':' }) {
		t.Fatalf("the manager was told %q with file %v", said, file)
	}
	must(t, ln.Close())
	waiting := dial(t, path)

	for _, c := range []struct{ name, want string }{{name, "served by the next run"}, {"1" + name, ""}} {
		child := exec.Command("/bin/sh", "-c", `LISTEN_PID=$$ exec "$0"`, os.Args[0])
		child.ExtraFiles = []*os.File{file}
		child.Env = append(os.Environ(), servePath+"="+path, "NOTIFY_SOCKET="+m.path, "LISTEN_FDS="+strconv.Itoa(1),
			"LISTEN_FDNAMES="+c.name)
		out, err := child.CombinedOutput()
		if (err == nil) != (c.want != "") {
			t.Errorf("run with socket %s: %v\n%s", c.name, err, out)
		}
		if c.want == "" { // of a file that is there no more
			if said, _ := m.hears(t); said != "FDSTOREREMOVE=1\nFDNAME="+c.name {
				t.Errorf("the manager was told %q", said)
			}
			continue
		}
		if got, err := io.ReadAll(waiting); err != nil || string(got) != c.want {
			t.Errorf("who waited got %q, %v", got, err)
		}
	}
}

// TestDropIsAtOnce: a dropped socket refuses who comes, although the service manager, who is slow at times, has it
// still.
func TestDropIsAtOnce(t *testing.T) {
	path, m := place(t), newManager(t)
	s := open(t, m.path)
	ln := listen(t, path)
	must(t, s.Keep(path, ln))
	said, _ := m.hears(t) // its copy stays open
	must(t, ln.Close())
	s.Drop(path)
	if _, err := net.Dial("unix", path); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("who comes to a dropped socket: %v", err)
	}
	want := "FDSTOREREMOVE=1\nFDNAME=" + strings.TrimPrefix(said, "FDSTORE=1\nFDNAME=")
	if said, file := m.hears(t); said != want || file != nil {
		t.Errorf("the manager was told %q, want %q", said, want)
	}
}
