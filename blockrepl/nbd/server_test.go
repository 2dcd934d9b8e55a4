package nbd_test

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"duet/blockrepl"
	"duet/blockrepl/backing"
	"duet/blockrepl/blocktest"
	"duet/blockrepl/nbd"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// volume is a Server at work in a test.
type volume struct {
	sock string
	uri  string
	srv  *nbd.Server
	q    blockrepl.Queue
	log  *logBuffer
	stop func()
}

type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func testLog(t *testing.T) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), nil))
}

// socketPath is short enough for a unix socket, unlike t.TempDir of a long test name.
func socketPath(t *testing.T) string {
	dir, err := os.MkdirTemp("", "nbd")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "s")
}

// mapped is a queue that knows its holes.
type mapped struct {
	blockrepl.Queue
	blockrepl.Mapper
}

// offer serves q, with the holes of m, until the test ends or stop is called.
func offer(t *testing.T, q blockrepl.Queue, m blockrepl.Mapper) *volume {
	t.Helper()
	sock := socketPath(t)
	log := &logBuffer{}
	srv := nbd.New(nbd.Options{Socket: sock, Name: "vol", Log: slog.New(slog.NewTextHandler(log, nil))})
	if m != nil {
		q = mapped{q, m}
	}
	if err := srv.Listen(); err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(q) }()
	stop := sync.OnceFunc(func() {
		if err := srv.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	t.Cleanup(stop)
	return &volume{sock: sock, uri: "nbd+unix:///vol?socket=" + sock, srv: srv, q: q, log: log, stop: stop}
}

// offerFile serves a new image of size bytes.
func offerFile(t *testing.T, size int64) (*volume, *backing.File) {
	t.Helper()
	dev, err := backing.CreateFile(filepath.Join(t.TempDir(), "image"), size)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dev.Close() })
	return offer(t, startQueue(t, dev), dev), dev
}

func startQueue(t *testing.T, dev blockrepl.Device) *blocktest.PlainQueue {
	q := blocktest.StartQueue(dev, 4)
	t.Cleanup(func() { q.Close() })
	return q
}
