package nbd_test

import (
	"bytes"
	"errors"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"duet/blockrepl"
	"duet/blockrepl/backing"
	"duet/blockrepl/blocktest"
	"duet/blockrepl/nbd"
)

// eventually waits for a condition.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(limit); !cond(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

// Nonsense ends its own connection with one line in the log; a client beside it notices nothing.
func TestGarbage(t *testing.T) {
	noise := bytes.Repeat([]byte("GET / HTTP/1.1\r\n"), 8)
	for _, c := range []struct {
		name string
		send func(t *testing.T, sock string) *client
	}{
		{"client flags", func(t *testing.T, sock string) *client {
			nc, err := net.Dial("unix", sock)
			if err != nil {
				t.Fatal(err)
			}
			c := &client{Conn: nc}
			c.SetDeadline(time.Now().Add(limit))
			c.put(t, be(uint32(0x80000001)))
			c.take(t, 18)
			return c
		}},
		{"option magic", func(t *testing.T, sock string) *client { c := dialRaw(t, sock); c.put(t, noise); return c }},
		{"huge option", func(t *testing.T, sock string) *client {
			c := dialRaw(t, sock)
			c.put(t, be("IHAVEOPT", uint32(7), uint32(1<<31)))
			return c
		}},
		{"endless options", func(t *testing.T, sock string) *client {
			c := dialRaw(t, sock)
			for range 256 {
				c.option(t, 99, nil)
			}
			c.put(t, be("IHAVEOPT", uint32(99), uint32(0)))
			return c
		}},
		{"unknown export name", func(t *testing.T, sock string) *client {
			c := dialRaw(t, sock)
			c.put(t, be("IHAVEOPT", uint32(1), uint32(5), "other"))
			return c
		}},
		{"request magic", func(t *testing.T, sock string) *client { c := dial(t, sock, true); c.put(t, noise); return c }},
		{"huge write", func(t *testing.T, sock string) *client {
			c := dial(t, sock, false)
			if _, err := c.request(0, 1, 0, 32<<20+512, nil); err != nil {
				t.Fatal(err)
			}
			return c
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dev := backing.NewMemory(1 << 20)
			v := offer(t, startQueue(t, dev), dev)
			good := dial(t, v.sock, true)
			bad := c.send(t, v.sock)
			bad.gone(t)
			bad.Close()
			if _, err := good.WriteAt(make([]byte, 4096), 0); err != nil {
				t.Errorf("the client beside: %v", err)
			}
			eventually(t, "one line in the log", func() bool { return strings.Count(v.log.String(), "\n") == 1 })
			good.Close()
			v.stop()
			if n := strings.Count(v.log.String(), "\n"); n != 1 {
				t.Errorf("%d lines in the log:\n%s", n, v.log)
			}
		})
	}
}

// A write of which only a part arrived must not happen at all.
func TestKilledMidWrite(t *testing.T) {
	dev := backing.NewMemory(8 << 20)
	v := offer(t, startQueue(t, dev), nil)
	for _, payload := range []int{0, 1, 4095, 600 << 10} {
		c := dial(t, v.sock, true)
		if _, err := c.WriteAt(bytes.Repeat([]byte{1}, 4096), 0); err != nil {
			t.Fatal(err)
		}
		if _, err := c.request(0, 1, 0, 1<<20, bytes.Repeat([]byte{2}, payload)); err != nil {
			t.Fatal(err)
		}
		c.Close()
	}
	v.stop() // joins the connections
	p := make([]byte, 1<<20)
	if _, err := dev.ReadAt(p, 0); err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(p, []byte{2}) {
		t.Error("a part of an incomplete write reached the device")
	}
}

// Requests that cannot be served get the protocol's error and the connection goes on.
func TestRefusals(t *testing.T) {
	const size = 1 << 20
	dev := backing.NewMemory(size)
	v := offer(t, startQueue(t, dev), dev)
	for _, c := range []struct {
		name       string
		flags, cmd uint16
		off        uint64
		length     uint32
		want       uint32
	}{
		{"read of nothing", 0, 0, 0, 0, 22},
		{"unaligned read", 0, 0, 1, 512, 22},
		{"unaligned length", 0, 1, 0, 511, 22},
		{"read beyond the end", 0, 0, size - 512, 1024, 22},
		{"read far beyond the end", 0, 0, 1<<64 - 512, 1024, 22},
		{"write beyond the end", 0, 1, size, 512, 28},
		{"zeroes beyond the end", 0, 6, size - 512, 1024, 28},
		{"trim beyond the end", 0, 4, size, 512, 22},
		{"too large a read", 0, 0, 0, 32<<20 + 512, 22},
		{"unknown command", 0, 8, 0, 512, 22},
		{"unknown flag", 1 << 9, 0, 0, 512, 22},
		{"write with a read's flag", 1 << 2, 1, 0, 512, 22},
		{"fast zero", 1 << 4, 6, 0, 512, 95},
		{"read", 1 << 2, 0, 0, 512, 0},
		{"cache", 0, 5, 0, 512, 0},
		{"zeroes with fua", 1 | 1<<1, 6, 0, size, 0},
		{"block status", 1 << 3, 7, 0, size, 0},
	} {
		for _, structured := range []bool{true, false} {
			if !structured && (c.flags == 1<<2 || c.cmd == 7) {
				continue
			}
			cl := dial(t, v.sock, structured)
			var payload []byte
			if c.cmd == 1 {
				payload = make([]byte, c.length)
			}
			cookie, err := cl.request(c.flags, c.cmd, c.off, c.length, payload)
			if err != nil {
				t.Fatal(err)
			}
			n := 0
			if c.cmd == 0 {
				n = int(c.length)
			}
			a, err := cl.answer(n)
			if err != nil || a.code != c.want || a.cookie != cookie {
				t.Errorf("%s (structured %t): %+v, %v, want code %d", c.name, structured, a, err, c.want)
				continue
			}
			if _, err := cl.WriteAt(make([]byte, 512), 0); err != nil {
				t.Errorf("%s (structured %t): afterwards: %v", c.name, structured, err)
			}
			cl.Close()
		}
	}
	cl := dial(t, v.sock, false)
	if _, err := cl.request(0, 7, 0, 512, nil); err != nil {
		t.Fatal(err)
	}
	if a, err := cl.answer(0); err != nil || a.code != 22 {
		t.Errorf("block status without its context: %+v, %v", a, err)
	}
}

// A volume that answers nothing stops the client, not the node's memory.
func TestWritesInFlightAreBounded(t *testing.T) {
	for _, size := range []int{4096, 64 << 10, 1 << 20} {
		q := blocktest.NewHandQueue(1 << 20)
		v := offer(t, q, nil)
		c := dial(t, v.sock, true)
		var sent atomic.Int64
		stopped := make(chan struct{})
		go func() {
			defer close(stopped)
			payload := make([]byte, size)
			for c.cookie < 1<<20 {
				if _, err := c.request(0, 1, 0, uint32(size), payload); err != nil {
					return
				}
				sent.Add(int64(size))
			}
		}()
		last, since := int64(-1), time.Now()
		eventually(t, "the client is held up", func() bool {
			if now := sent.Load(); now != last {
				last, since = now, time.Now()
			}
			return time.Since(since) > 200*time.Millisecond
		})
		if n := sent.Load(); n > 80<<20 || n < 2<<20 {
			t.Errorf("%d bytes of writes of %d were taken without an answer", n, size)
		}
		if n := len(q.Requests); n > 1024 {
			t.Errorf("%d requests in flight", n)
		}
		for range 8 { // room again for more
			blocktest.Finish(q.Next(t), nil)
			if _, err := c.answer(0); err != nil {
				t.Fatal(err)
			}
		}
		c.Close()
		<-stopped
		for len(q.Requests) > 0 {
			blocktest.Finish(q.Next(t), nil)
		}
		v.stop()
	}
}

// A client that asks and does not listen is held up as well, and gets everything once it listens.
func TestAnswersAreBounded(t *testing.T) {
	q := &countingQueue{Queue: startQueue(t, backing.NewMemory(1<<20))}
	v := offer(t, q, nil)
	c := dial(t, v.sock, true)
	const total = 1000
	go func() {
		for range total {
			if _, err := c.request(0, 0, 0, 1<<20, nil); err != nil {
				return
			}
		}
	}()
	last, since := int64(-1), time.Now()
	eventually(t, "the client is held up", func() bool {
		if now := q.reads.Load(); now != last {
			last, since = now, time.Now()
		}
		return time.Since(since) > 200*time.Millisecond
	})
	if last > 80 {
		t.Errorf("%d answers of 1 MiB are waiting", last)
	}
	for i := range total {
		a, err := c.answer(0)
		if err != nil || a.code != 0 || len(a.data) != 1<<20 {
			t.Fatalf("answer %d: code %d, %d bytes, %v", i, a.code, len(a.data), err)
		}
	}
}

type countingQueue struct {
	blockrepl.Queue
	reads atomic.Int64
}

func (q *countingQueue) Submit(r *blockrepl.Request) {
	q.reads.Add(1)
	q.Queue.Submit(r)
}

func TestSocket(t *testing.T) {
	sock := socketPath(t)
	fresh := func() *nbd.Server { return nbd.New(nbd.Options{Socket: sock, Name: "vol", Log: testLog(t)}) }

	old, err := net.ListenUnix("unix", &net.UnixAddr{Name: sock, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	if err := fresh().Listen(); !errors.Is(err, nbd.ErrInUse) {
		t.Errorf("socket of a living process: %v", err)
	}
	old.SetUnlinkOnClose(false) // as a killed process leaves it
	old.Close()
	s := fresh()
	if err := s.Listen(); err != nil {
		t.Fatalf("stale socket: %v", err)
	}
	info, err := os.Stat(sock)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if s.Endpoint() != sock {
		t.Errorf("endpoint %q", s.Endpoint())
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(sock); err != nil { // it says who may come back
		t.Fatal(err)
	}
	if err := os.WriteFile(sock, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := fresh().Listen(); err == nil {
		t.Error("a plain file was replaced by a socket")
	}
	if got, _ := os.ReadFile(sock); string(got) != "precious" {
		t.Error("a plain file was removed")
	}
}

func TestLoopbackOnly(t *testing.T) {
	for addr, ok := range map[string]bool{"127.0.0.1:0": true, "0.0.0.0:0": false, ":0": false, "[::]:0": false} {
		s := nbd.New(nbd.Options{Loopback: addr, Log: testLog(t)})
		if err := s.Listen(); (err == nil) != ok {
			t.Errorf("listen on %s: %v", addr, err)
		}
		s.Close()
	}
}

// A stuck volume must not keep Close: its connections are cut after the grace.
func TestCloseWithAStuckVolume(t *testing.T) {
	q := blocktest.NewHandQueue(4)
	v := offer(t, q, nil)
	c := dial(t, v.sock, true)
	if _, err := c.request(0, 3, 0, 0, nil); err != nil {
		t.Fatal(err)
	}
	r := q.Next(t)
	idle := dialRaw(t, v.sock) // in the option phase
	begin := time.Now()
	v.stop()
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("close took %v", took)
	}
	c.gone(t)
	idle.gone(t)
	blocktest.Finish(r, nil) // late, into nothing
}
