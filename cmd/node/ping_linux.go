package node

import (
	"context"
	"os"
	"time"

	probing "github.com/prometheus-community/pro-bing"
)

// ping reports whether any ping target of the cluster answers (rule 3d); without
// targets, the default gateway.
func (n *Node) ping(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, pingTime)
	defer cancel()
	targets := n.cluster().Ping
	if len(targets) == 0 {
		targets = gateways()
	}
	answers := make(chan bool, len(targets))
	for _, t := range targets {
		go func() { answers <- pingOne(ctx, t) }()
	}
	for range targets {
		if <-answers { // each ends with ctx at the latest
			return true
		}
	}
	return false
}

// pingOne sends up to three echo requests and is content with one answer.
func pingOne(ctx context.Context, target string) bool {
	p, err := probing.NewPinger(target)
	if err != nil {
		return false
	}
	p.SetPrivileged(true)
	p.Interval, p.Count = 200*time.Millisecond, 3
	got := false
	p.OnRecv = func(*probing.Packet) { got = true; p.Stop() }
	return p.RunWithContext(ctx) == nil && got || got
}

// gateways lists the default IPv4 gateways of this node, from the kernel's table.
func gateways() []string {
	table, err := os.ReadFile("/proc/self/net/route")
	if err != nil {
		return nil
	}
	return parseGateways(string(table))
}
