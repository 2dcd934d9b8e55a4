//go:build linux

package netns

import (
	"fmt"
	"io"
	"net"
	"regexp"
	"strconv"
	"testing"
	"time"
)

// TestLoss: some frames arrive and some do not.
func TestLoss(t *testing.T) {
	l := lan(t, "dtbnsloss")
	if !l.ping("alpha", "beta", "hb1") { // the neighbours know each other before frames are lost
		t.Fatal("the network does not carry")
	}
	must(t, l.Cut(Cut{Network: "hb1", From: "alpha", To: "beta", Percent: 50}))
	var got string
	_ = l.Do("alpha", func() error { // it fails for what is missing
		cmd, err := output("ping", "-q", "-c60", "-i0.01", "-W1", l.Addr("beta", "hb1").String())
		got = string(cmd)
		return err
	})
	m := regexp.MustCompile(`(\d+) received`).FindStringSubmatch(got)
	if m == nil {
		t.Fatalf("ping said %q", got)
	}
	if n, _ := strconv.Atoi(m[1]); n < 5 || n > 55 {
		t.Errorf("%d of 60 arrived", n)
	}
	must(t, l.RestoreAll())
	if !l.ping("alpha", "beta", "hb1") {
		t.Error("the loss was not taken back")
	}
}

// TestSlow: a slow link takes its time, and is fast again afterwards.
func TestSlow(t *testing.T) {
	l := lan(t, "dtbnsslow")
	const rate, size = 200 << 10, 300 << 10
	must(t, l.Slow("beta", "hb1", rate))
	if took := transfer(t, l, size); took < time.Second {
		t.Errorf("%d bytes took %v at %d bytes per second", size, took, rate)
	}
	must(t, l.Slow("beta", "hb1", 0))
	must(t, l.Slow("beta", "hb1", 0)) // again is fine
	if took := transfer(t, l, size); took > time.Second {
		t.Errorf("%d bytes took %v on a fast link", size, took)
	}
}

// transfer sends bytes from alpha to beta by TCP.
func transfer(t *testing.T, l *LAN, size int64) time.Duration {
	t.Helper()
	var ln net.Listener
	addr := fmt.Sprintf("%s:9000", l.Addr("beta", "hb1"))
	must(t, l.Do("beta", func() (err error) { ln, err = net.Listen("tcp", addr); return err }))
	defer ln.Close()
	var c net.Conn
	must(t, l.Do("alpha", func() (err error) { c, err = net.Dial("tcp", addr); return err }))
	defer c.Close()
	in, err := ln.Accept()
	must(t, err)
	defer in.Close()
	begin := time.Now()
	sent := make(chan error, 1)
	go func() {
		_, err := c.Write(make([]byte, size))
		sent <- err
	}()
	_, err = io.CopyN(io.Discard, in, size)
	must(t, err)
	must(t, <-sent)
	return time.Since(begin)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
