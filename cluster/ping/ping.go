// Package ping asks whether anything beyond the other nodes answers: what is left to go by where a
// module's arbitration is `available` and there is neither witness nor fence agent (cluster/DESIGN.md, rule 3d).
//
// It needs a raw socket, and says false without the right to one. That a target answers does not prove that the peer
// is dead: it only makes it less likely that this node is the one that is cut off.
package ping

import (
	"context"
	"encoding/hex"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	probing "github.com/prometheus-community/pro-bing"
)

// limit bounds one question.
const limit = 800 * time.Millisecond

// Any reports whether one of targets answers; without targets, a default gateway of this node where the kernel tells
// which these are (Linux). It blocks for limit at most; targets are IP addresses, for a name would be looked up
// without that bound. A node without a gateway of IPv4 has no target of its own.
func Any(ctx context.Context, targets []string) bool {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	targets = who(targets)
	answers := make(chan bool, len(targets))
	for _, t := range targets {
		go func() { answers <- one(ctx, t) }()
	}
	for range targets {
		if <-answers { // each ends with ctx at the latest
			return true
		}
	}
	return false
}

// Target is an address that was asked.
type Target struct {
	Addr    string
	Answers bool
}

// Each asks the targets of Any, and says of each whether it answers, in their order; not nil. It blocks for limit at
// most.
func Each(ctx context.Context, targets []string) []Target {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	out := []Target{}
	for _, t := range who(targets) {
		out = append(out, Target{Addr: t})
	}
	var wg sync.WaitGroup
	for i := range out {
		wg.Go(func() { out[i].Answers = one(ctx, out[i].Addr) })
	}
	wg.Wait()
	return out
}

// who is asked.
func who(targets []string) []string {
	if len(targets) == 0 {
		return gateways()
	}
	return targets
}

// Watch looks now and then whether a target answers, for those who would have to go by that. The zero value is ready.
type Watch struct {
	silent atomic.Bool // none did, twice in a row
}

// watchEvery is the time between two looks.
const watchEvery = 10 * time.Second

// Silent says that no target answered the last two looks: one lost packet is no news. Any goroutine.
func (w *Watch) Silent() bool { return w.silent.Load() }

// Run looks until ctx ends, as long as due says that somebody would go by the targets, and by which.
func (w *Watch) Run(ctx context.Context, due func() (targets []string, yes bool)) {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for missed := false; ; {
		targets, yes := due()
		answers := !yes || Any(ctx, targets)
		w.silent.Store(!answers && missed)
		missed = !answers
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// one sends up to three echo requests and is content with one answer.
func one(ctx context.Context, target string) bool {
	p, err := probing.NewPinger(target)
	if err != nil {
		return false
	}
	p.SetPrivileged(true)
	p.Interval, p.Count = 200*time.Millisecond, 3
	got := false
	p.OnRecv = func(*probing.Packet) { got = true; p.Stop() }
	_ = p.RunWithContext(ctx) // an answer counts, however it ends
	return got
}

// gateways lists the default IPv4 gateways of this node, from the kernel's table.
func gateways() []string {
	table, err := os.ReadFile("/proc/self/net/route")
	if err != nil {
		return nil
	}
	return parse(string(table))
}

// parse reads lines of "iface destination gateway …", addresses in hex, little-endian. A destination of 0 is the
// default route; one without a gateway has nobody to ask.
func parse(table string) []string {
	var out []string
	for line := range strings.Lines(table) {
		f := strings.Fields(line)
		if len(f) < 3 || f[1] != "00000000" || f[2] == "00000000" {
			continue
		}
		if b, err := hex.DecodeString(f[2]); err == nil && len(b) == 4 {
			out = append(out, net.IPv4(b[3], b[2], b[1], b[0]).String())
		}
	}
	return out
}
