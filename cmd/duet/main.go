//go:build !man

// Command duet is the command line of a cluster: a thin face of the API that
// every node serves. It decides nothing itself. Only "cluster init" and "cluster
// join" work on files, on the node itself and before its daemon runs; "doctor" and "support" look at this
// computer themselves where its daemon does not answer.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"

	"duet/cluster/mux"
	"duet/cmd/duet/setup"
	"duet/cmd/version"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second ctrl-C ends at once
	a := &app{
		in: os.Stdin, out: os.Stdout, err: os.Stderr, env: os.Getenv,
		inTTY: isTerminal(os.Stdin), outTTY: isTerminal(os.Stdout),
		width: func() int { return terminalWidth(os.Stdout) },
		now:   time.Now, tick: time.Second, setup: setup.OnDisk{Dial: mux.DialJoin}, version: version.String(),
		local: thisHost{version.String()},
	}
	os.Exit(a.run(ctx, os.Args[1:]))
}
