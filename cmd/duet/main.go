//go:build !man

// Command duet is the command line of a cluster: a thin face of the API that every node serves. It decides nothing
// itself: what is allowed, on which node it is done and what a word means, the daemon says, so that the command,
// the API and a script get the same answer. It keeps no state of its own and changes no file, but for "cluster
// init", "join", "leave" and "rejoin", which work on the node's own files while its daemon does not run, "config
// edit", which leaves a text that was refused, and "support", which makes a zip. "doctor" and "support" look at
// this computer themselves where its daemon does not answer.
//
// # What a command promises
//
// With --json standard output has documents as the API gives them (package api) and nothing else: one for each
// command, or one for each line where something is followed (log -f, status -w). Without it it has text for people,
// which may change with each release, and the progress of a task; scripts use --json and exit codes. Standard error
// has questions, what an order is waited for where standard output is no terminal, problems that do not keep a
// command from its work (complain), and why it failed: one line or one problem document (RFC 9457). With --json that
// document has the problems too; of a command that did its work they are one of their own, {"problems": […]}.
//
//	0    done: what was ordered has been reached, not only accepted, unless --no-wait was given
//	1    refused, failed, interrupted, or a yes is wanted and nobody can give it
//	2    the command line is wrong; nothing was asked of anybody
//	...  "status" has its own: see status.go
//
// Whatever goes on in the daemon (an order, a task) goes on without whoever follows it: the first ctrl-C or SIGTERM
// ends the following and says how to look again, a second one ends the process at once, as the system does it.
//
// Text from elsewhere (names, reasons) goes through clean before it is printed for people: no VM's name can move
// the cursor. The YAML of "config show" is copied as it is.
//
// # Files, in reading order
//
//	app.go                           one run: flags, exit codes, errors, JSON or text
//	status.go watch.go               how the cluster stands, once or until ctrl-C; with proof.go, notice.go, volume.go
//	action.go order.go               start, stop, swap … and what becomes of the order
//	task.go                          long work that is followed; vm.go, volume.go and diverged.go begin it
//	cluster.go witness.go fence.go   who takes part; setup: the files of a node
//	config.go edit.go                configurations of modules
//	doctor.go support.go local.go    when something is wrong
//	explain.go metrics.go version.go log.go
//	format.go table.go term_*.go complete.go   how things are written, and offered to a shell
//	man.go                           another program of the same commands: it writes the manual pages
//
// A new command is a method that returns a *cobra.Command and is listed in app.root or in its group; its work is in
// app.call if it asks a node, else in app.do. testdata has a golden file for each command line that is worth keeping.
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
	// After the first signal the default is back, so that a node that hangs, or a terminal that nobody reads, cannot
	// keep the command: the second one kills it, and what it shows on another screen (watch) stays as it is.
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
