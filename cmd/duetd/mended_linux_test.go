package main

import (
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// TestUsageCodes: systemd does not try again what no try can mend.
func TestUsageCodes(t *testing.T) {
	for _, line := range []string{"--log loud", "witness start", "witness forget", "witness token extra --life 1h",
		"witness list extra"} {
		_, _, err := here(t, strings.Fields(line)...)
		if err == nil || exitCode(err) != exitUsage {
			t.Errorf("duetd %s: exit %d, %v", line, exitCode(err), err)
		}
	}
}

// TestWitnessList: the clusters of a witness are listed, under a head.
func TestWitnessList(t *testing.T) {
	dir := home(t)
	w := start(t, "witness", "--dir", dir, "--listen", "127.0.0.1:0")
	w.says(t, "witness runs")
	if out, _, err := here(t, "witness", "list", "--dir", dir); err != nil || !strings.HasPrefix(out, "ID ") {
		t.Errorf("%q, %v", out, err)
	}
	for _, life := range []string{"0s", "-5m"} {
		if out, _, err := here(t, "witness", "token", "--life", life, "--dir", dir); exitCode(err) != exitUsage {
			t.Errorf("--life %s: %q, %v", life, out, err)
		}
	}
	_, _, err := here(t, "witness", "forget", "--dir", dir, "0123")
	if err == nil || !strings.Contains(err.Error(), "0123") || strings.Contains(err.Error(), "register it anew") {
		t.Errorf("forget of one that is not there: %v", err)
	}
	w.end(t, syscall.SIGTERM)
}

// TestFlagsBeforeVerb: what an admin asks for is done or refused, and no witness is run instead.
func TestFlagsBeforeVerb(t *testing.T) {
	dir := home(t)
	w := start(t, "witness", "--dir", dir, "--listen", "127.0.0.1:0", "list")
	waitFor(t, "its end or a witness", func() bool {
		select {
		case <-w.ended:
			return true
		default:
			return strings.Contains(w.err.String(), "witness runs")
		}
	})
	if strings.Contains(w.err.String(), "witness runs") {
		t.Errorf("it runs a witness in %s:\n%s", filepath.Base(dir), w.err.String())
	}
}

// TestSpoutEnds: the end waits for a second at most, also where the log is full.
func TestSpoutEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &held{wait: make(chan struct{})}
		s := newSpout(h)
		numbered(t, s, 0, 1)
		synctest.Wait()
		numbered(t, s, 1, 1000)
		began := time.Now()
		go func() { // lets it end, much too late
			time.Sleep(time.Minute)
			close(h.wait)
			s.lines <- nil
		}()
		s.close()
		if took := time.Since(began); took > time.Second {
			t.Errorf("it ended after %v", took)
		}
		<-s.ended
	})
}
