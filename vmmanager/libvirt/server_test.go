//go:build linux && cgo && libvirt_dlopen

package libvirt

import (
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"duet/blockrepl/backing"
	"duet/blockrepl/blocktest"
	"duet/blockrepl/fdstore"
	bnbd "duet/blockrepl/nbd"
	"duet/testbed/proc"
)

// These make this test binary a server of one volume, as duetd is.
const (
	serveImage  = "DUET_SERVE_IMAGE"
	serveSocket = "DUET_SERVE_SOCKET"
)

// serveVolume serves until the process is killed.
func serveVolume(image, socket string) {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	info, err := os.Stat(image)
	if err != nil {
		panic(err)
	}
	dev, err := backing.OpenFile(image, info.Size())
	if err != nil {
		panic(err)
	}
	server := bnbd.New(bnbd.Options{Socket: socket, Name: "vda", Keeper: fdstore.Open(log), Log: log})
	panic(server.Serve(blocktest.StartQueue(dev, 4)))
}

// own is Duet's own NBD server in a process of its own, whose socket outlives it as duetd's do.
type own struct {
	image, socket string
	node          *proc.Node
	store         *proc.Store
	run           *proc.Process
	log           string
}

func (n *node) serveOwn(t *testing.T, image, name string) *own {
	t.Helper()
	store, err := proc.NewStore(filepath.Join(n.dir, name+".notify"))
	must(t, err)
	t.Cleanup(func() { check(t, store.Close()) })
	s := &own{image: image, socket: filepath.Join(n.dir, name+".sock"), node: n.proc, store: store,
		log: filepath.Join(t.TempDir(), "log")}
	s.start(t)
	return s
}

// start begins a run and waits until it serves.
func (s *own) start(t *testing.T) {
	t.Helper()
	var err error
	s.run, err = s.node.Start(proc.Spec{Path: os.Args[0],
		Env: []string{serveImage + "=" + s.image, serveSocket + "=" + s.socket}, Store: s.store, Output: s.log})
	must(t, err)
	until(t, "the volume is served", func() (bool, error) {
		conn, err := net.Dial("unix", s.socket)
		if err != nil {
			return false, err
		}
		defer conn.Close()
		must(t, conn.SetReadDeadline(time.Now().Add(10*time.Second)))
		_, err = io.ReadFull(conn, make([]byte, 8))
		return err == nil, err
	})
}

// kill ends the run as a crash would.
func (s *own) kill(t *testing.T) {
	t.Helper()
	must(t, s.run.Kill())
	<-s.run.Done()
}
