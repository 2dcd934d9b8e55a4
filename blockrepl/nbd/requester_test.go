package nbd_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"duet/blockrepl"
	"duet/blockrepl/backing"
	"duet/blockrepl/blocktest"
	"duet/blockrepl/nbd"
)

// dialed is a Client that is closed with the test.
func dialed(t *testing.T, sock string) *nbd.Client {
	t.Helper()
	c, err := nbd.Dial(sock, "vol")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// TestClientDevice: a volume over its socket is a device as its image is.
func TestClientDevice(t *testing.T) {
	blocktest.Device(t, func(t *testing.T) blockrepl.Device {
		v, _ := offerFile(t, blocktest.DeviceSize)
		return dialed(t, v.sock)
	})
}

// TestClientOutlivesServers: while many write and flush, servers come, and go with requests in flight. Nothing fails,
// and what was answered is there.
func TestClientOutlivesServers(t *testing.T) {
	const writers, rounds, servers = 8, 200, 6
	img, err := backing.CreateFile(filepath.Join(t.TempDir(), "image"), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	sock := socketPath(t)
	serve := func() (stop func()) {
		srv := nbd.New(nbd.Options{Socket: sock, Name: "vol", Log: testLog(t)})
		q := blocktest.StartQueue(img, 2)
		if err := srv.Listen(); err != nil {
			t.Fatal(err)
		}
		served := make(chan error, 1)
		go func() { served <- srv.Serve(q) }()
		return func() {
			q.Close() // what is in flight ends with ErrClosed, and so the connection
			if err := errors.Join(srv.Close(), <-served); err != nil {
				t.Error(err)
			}
		}
	}
	stop := serve()
	c := dialed(t, sock)
	progress := make(chan struct{}, writers*rounds)
	var all sync.WaitGroup
	for w := range writers {
		all.Go(func() {
			for i := range rounds {
				block := bytes.Repeat([]byte(fmt.Sprintf("%3d%5d", w, i)), 4096/8)
				off := int64(w*16+i%16) * 4096
				got := make([]byte, len(block))
				_, err := c.WriteAt(block, off)
				err = errors.Join(err, c.Flush())
				_, readErr := c.ReadAt(got, off)
				if err = errors.Join(err, readErr); err != nil || !bytes.Equal(got, block) {
					t.Errorf("writer %d, round %d: %v, read %.8q", w, i, err, got)
					return
				}
				progress <- struct{}{}
			}
		})
	}
	for range servers - 1 {
		for range writers * rounds / servers / 2 {
			<-progress
		}
		stop()
		stop = serve()
	}
	all.Wait()
	c.Close()
	stop()
	if err := c.Flush(); !errors.Is(err, blockrepl.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

// TestClientClosedWhileItWaits: what waits for a server that does not come ends with Close.
func TestClientClosedWhileItWaits(t *testing.T) {
	v, _ := offerFile(t, 1<<20)
	c := dialed(t, v.sock)
	v.stop()
	os.Remove(v.sock)
	failed := make(chan error)
	go func() { _, err := c.WriteAt(make([]byte, 512), 0); failed <- err }()
	c.Close()
	if err := <-failed; !errors.Is(err, blockrepl.ErrClosed) {
		t.Errorf("a write that waited: %v", err)
	}
}

// TestClientErrors: what the volume refuses is an error and no reason to look for another server.
func TestClientErrors(t *testing.T) {
	v, _ := offerFile(t, 1<<20)
	c := dialed(t, v.sock)
	if _, err := c.WriteAt(make([]byte, 512), 1<<20); err == nil {
		t.Error("a write behind the end")
	}
	if _, err := c.ReadAt(make([]byte, 512), 0); err != nil {
		t.Errorf("a read after it: %v", err)
	}
	if _, err := nbd.Dial(v.sock, "other"); err == nil {
		t.Error("an export that is not there")
	}
}
