package clustertest

import (
	"errors"
	"os"
	"testing"
	"testing/synctest"
	"time"
)

func listen(t *testing.T, n *Network, ip string) *Host {
	t.Helper()
	h, err := n.Listen(ip, 7)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	return h
}

func TestPackets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := NewNetwork(1)
		a, b := listen(t, n, "10.0.0.1"), listen(t, n, "10.0.0.2")
		arrives := func() (time.Duration, bool) {
			start := time.Now()
			if err := a.Send([]byte("x"), "10.0.0.2:7"); err != nil {
				t.Fatal(err)
			}
			select {
			case p := <-b.Packets():
				return p.At.Sub(start), string(p.Data) == "x" && p.From.String() == "10.0.0.1:7"
			case <-time.After(time.Second):
				return 0, false
			}
		}
		for _, c := range []struct {
			name  string
			set   func(x, y string)
			want  bool
			delay time.Duration
		}{
			{"good", n.Connect, true, 0},
			{"cut", n.Partition, false, 0},
			{"one way, the good one", func(x, y string) { n.Connect(x, y); n.Set(y, x, Link{Cut: true}) }, true, 0},
			{"one way, the bad one", func(x, y string) { n.Connect(x, y); n.Set(x, y, Link{Cut: true}) }, false, 0},
			{"slow", func(x, y string) { n.Delay(x, y, 100*time.Millisecond) }, true, 100 * time.Millisecond},
			{"lossy", func(x, y string) { n.Drop(x, y, 1) }, false, 0},
		} {
			c.set("10.0.0.1", "10.0.0.2")
			if d, ok := arrives(); ok != c.want || d != c.delay {
				t.Errorf("%s: arrives %v after %v", c.name, ok, d)
			}
		}
		n.Drop("10.0.0.1", "10.0.0.2", 0.5)
		got := 0
		for range 100 {
			if _, ok := arrives(); ok {
				got++
			}
		}
		if got < 30 || got > 70 {
			t.Errorf("%d of 100 arrive with a loss of a half", got)
		}
		n.Wait()
	})
}

func TestStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := NewNetwork(1)
		a, b := listen(t, n, "10.0.0.1"), listen(t, n, "10.0.0.2")
		if _, err := n.Listen("10.0.0.2", 7); err == nil {
			t.Error("one address, two hosts")
		}
		go func() {
			c := <-b.Streams()
			defer c.Close()
			buf := make([]byte, 1)
			if _, err := c.Read(buf); err == nil {
				c.Write(buf)
			}
		}()
		c, err := a.Dial("10.0.0.2:7", time.Second)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		n.Partition("10.0.0.1", "10.0.0.2")
		if _, err := c.Write([]byte("x")); err != nil { // swallowed
			t.Error(err)
		}
		if _, err := a.Dial("10.0.0.2:7", time.Second); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("dial across a cut: %v", err)
		}
		n.Connect("10.0.0.1", "10.0.0.2")
		buf := make([]byte, 1)
		if _, err := c.Write([]byte("y")); err != nil {
			t.Error(err)
		}
		if _, err := c.Read(buf); err != nil || buf[0] != 'y' {
			t.Errorf("%q %v", buf, err)
		}
		b.Close()
		if _, err := a.Dial("10.0.0.2:7", time.Second); err == nil {
			t.Error("dialled a closed host")
		}
	})
}
