package scenario

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"duet/console/api"
	"duet/testbed/netns"
	"duet/testbed/testcluster"
)

// air is what a guest sends, as the switch of its network sees it, while it is asked all the time.
type air struct {
	answered atomic.Int64 // when it last answered, in nanoseconds since 1970
	hush     func()
	stops    map[string]func() ([]netns.Frame, error) // by host
}

// listen begins to ask a guest and to note what comes from it out of each host.
func listen(t *testing.T, l *testcluster.Cluster, guest int) *air {
	t.Helper()
	x := &air{stops: map[string]func() ([]netns.Frame, error){}}
	for host := range l.Hosts {
		stop, err := l.LAN.Capture(host, testcluster.Guests, "ether src "+testcluster.MAC(guest))
		must(t, err)
		x.stops[host] = stop
	}
	var conn net.Conn
	must(t, l.LAN.Do(netns.Switch, func() (err error) {
		conn, err = net.Dial("udp", fmt.Sprintf("%s:7", l.Address(guest)))
		return err
	}))
	var wg sync.WaitGroup
	end := make(chan struct{})
	wg.Go(func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				_, _ = conn.Write([]byte("who are you?")) // nobody may be there
			case <-end:
				conn.Close()
				return
			}
		}
	})
	wg.Go(func() {
		for buf := make([]byte, 100); ; {
			switch _, err := conn.Read(buf); {
			case err == nil:
				x.answered.Store(time.Now().UnixNano())
			case errors.Is(err, net.ErrClosed):
				return
			}
		}
	})
	x.hush = sync.OnceFunc(func() { close(end); wg.Wait() })
	t.Cleanup(x.hush)
	return x
}

// answers waits until the guest has answered anew.
func (x *air) answers(ctx context.Context, t *testing.T) {
	t.Helper()
	since := time.Now().UnixNano()
	must(t, testcluster.Until(ctx, "the guest answers", func() error {
		if x.answered.Load() < since {
			return errorf("it does not")
		}
		return nil
	}))
}

// once ends the listening and checks that the guest was heard out of one host, then out of the other, and not out of
// the first one any more since the other had the right to start it.
func (x *air) once(t *testing.T, before, after *testcluster.Host, since time.Time) {
	t.Helper()
	x.hush()
	heard := map[string][]netns.Frame{}
	for host, stop := range x.stops {
		frames, err := stop()
		must(t, err)
		heard[host] = frames
	}
	was, is := heard[before.Name], heard[after.Name]
	if len(was) == 0 || len(is) == 0 {
		t.Fatalf("%d frames out of %s, %d out of %s", len(was), before.Name, len(is), after.Name)
	}
	last := was[len(was)-1]
	t.Logf("%d frames out of %s, the last %v before %s had the right to start it; the first of %d out of %s %v after",
		len(was), before.Name, since.Sub(last.At), after.Name, len(is), after.Name, is[0].At.Sub(since))
	if !last.At.Before(since) {
		t.Errorf("out of %s came, %v after %s had the right: %s", before.Name, last.At.Sub(since), after.Name, last.Text)
	}
}

// granted is when a host last got the right to write.
func granted(ctx context.Context, t *testing.T, h *testcluster.Host) (at time.Time) {
	t.Helper()
	out, err := h.Duet(ctx, "log", "web01", "--json")
	must(t, err)
	var entries []api.LogEntry
	must(t, json.Unmarshal([]byte(out), &entries))
	for _, e := range entries {
		if e.On == "Granted" && e.Node == h.Name {
			at = e.Time
		}
	}
	if at.IsZero() {
		t.Fatalf("%s was granted nothing:\n%s", h.Name, out)
	}
	return at
}
