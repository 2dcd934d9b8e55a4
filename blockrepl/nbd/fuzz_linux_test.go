package nbd

import (
	"encoding/binary"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"duet/blockrepl/backing"
	"duet/blockrepl/blocktest"
)

// socketPair returns a connection and the file of its other end.
func socketPair(t *testing.T) (net.Conn, *os.File) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	near := os.NewFile(uintptr(fds[0]), "near")
	defer near.Close()
	conn, err := net.FileConn(near)
	if err != nil {
		t.Fatal(err)
	}
	return conn, os.NewFile(uintptr(fds[1]), "far")
}

// FuzzTransmission throws bytes at a connection in the transmission phase: it must
// come to its end, answer only what was asked, and each with a well-formed reply.
func FuzzTransmission(f *testing.F) {
	req := func(flags, cmd uint16, off uint64, n uint32) []byte { return encode(header{flags, cmd, 9, off, n}) }
	f.Add(append(req(0, cmdWrite, 0, 512), make([]byte, 512)...), true)
	f.Add(append(req(0, cmdRead, 0, 4096), req(0, cmdFlush, 0, 0)...), true)
	f.Add(append(req(0, cmdBlockStatus, 0, 65536), req(0, cmdDisc, 0, 0)...), true)
	f.Add(append(req(flagNoHole, cmdWriteZeroes, 0, 65536), req(0, cmdTrim, 512, 512)...), false)
	f.Add(append(req(0, cmdRead, 1<<63, 4096), req(0xffff, 77, 0, 0)...), false)
	f.Fuzz(func(t *testing.T, in []byte, structured bool) {
		dev := backing.NewMemory(1 << 20)
		q := blocktest.StartQueue(dev, 1)
		defer q.Close()
		near, far := socketPair(t)
		defer far.Close()
		l, err := newLink(near)
		if err != nil {
			t.Fatal(err)
		}
		c := &conn{q: q, dev: dev, size: uint64(dev.Size()), out: newOutbox(l, new(chunkPool), structured)}
		done := make(chan error, 1)
		go func() { done <- c.serve() }()
		var writer sync.WaitGroup
		writer.Go(func() {
			far.Write(in)
			syscall.Shutdown(int(far.Fd()), syscall.SHUT_WR)
		})
		defer writer.Wait()
		out, _ := io.ReadAll(far)
		select {
		case <-done:
		case <-time.After(20 * time.Second):
			t.Fatal("the connection does not end")
		}
		checkReplies(t, in, out, structured)
	})
}

// checkReplies counts requests in and replies out.
func checkReplies(t *testing.T, in, out []byte, structured bool) {
	asked := map[uint64]header{}
	count := 0
	for len(in) >= requestSize {
		h, err := parseHeader(in)
		if err != nil || len(in) < requestSize+h.payload() {
			break
		}
		in = in[requestSize+h.payload():]
		if _, twice := asked[h.cookie]; twice {
			return // nobody can tell whose replies are whose
		}
		asked[h.cookie] = h
		count++
	}
	for len(out) > 0 {
		if count--; count < 0 {
			t.Fatal("more replies than requests")
		}
		if len(out) < simpleSize {
			t.Fatalf("torn reply %x", out)
		}
		h, ok := asked[binary.BigEndian.Uint64(out[8:])]
		if !ok {
			t.Fatalf("reply to nobody: %x", out[:simpleSize])
		}
		n := simpleSize
		switch binary.BigEndian.Uint32(out) {
		case magicSimple:
			if h.cmd == cmdRead && !structured && binary.BigEndian.Uint32(out[4:]) == 0 {
				n += int(h.length)
			}
		case magicStructured:
			n = structuredSize + int(binary.BigEndian.Uint32(out[16:]))
		default:
			t.Fatalf("reply magic %x", out[:4])
		}
		if n > len(out) {
			return // nonsense behind the request cut the connection while the reply was on its way
		}
		out = out[n:]
	}
}
