//go:build !linux

package node

import (
	"context"

	probing "github.com/prometheus-community/pro-bing"
)

// ping reports whether any configured ping target answers (rule 3d).
func (n *Node) ping(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, pingTime)
	defer cancel()
	for _, t := range n.cluster().Ping {
		p, err := probing.NewPinger(t)
		if err != nil {
			continue
		}
		p.SetPrivileged(true)
		p.Count = 1
		if p.RunWithContext(ctx) == nil && p.Statistics().PacketsRecv > 0 {
			return true
		}
	}
	return false
}
