// Command duetd is the daemon of one node. It runs until SIGTERM or SIGINT and leaves the VMs as they are: their
// writes wait for its next start. When the whole computer goes down it moves them to their peers first. "duetd
// witness" is the third voter instead, "duetd guard" what ends guests that a dead daemon has left behind.
//
// This package has the three command lines and what each takes from the system: signals, systemd, locked memory, the
// hypervisor. What a node is made of is package node.
//
//	main.go      the daemon: flags, exit codes, its end
//	guard.go     duetd guard
//	apps.go      duetd apps, and duetd disk behind its block devices
//	witness.go   duetd witness, and the commands for a running one
//	process_*.go what differs between systems
//
// All three log JSON lines on standard error, for the journal; what is wrong with a command line stands there too.
// Standard output is for --version and for what a running witness answers.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"duet/appmodules/stage"
	"duet/cluster"
	"duet/cluster/guard"
	"duet/cluster/membership"
	"duet/cmd/node"
	"duet/cmd/version"
)

const usage = `duetd is the daemon of one node; systemd runs it. Beside it there are

  duetd witness   the third voter of a cluster, on another computer: duetd witness --help
  duetd guard     what pauses the guests of a daemon that died: duetd guard --help
  duetd apps      what runs applications on this host: duetd apps --help

`

// options are the flags, as node.Config wants them or nearly so.
type options struct {
	dir, socket, run, listen, uri, log string
	watchdog, guard, apps              string
	version, sleepy, admitRoot         bool
	images                             string // directories, with commas between
}

// main ends by itself only here, so that what was deferred has run. Help is no mistake: exit 0.
func main() {
	if err := command(os.Args[1:]); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "duetd:", cluster.Plain(err))
		os.Exit(exitCode(err))
	}
}

// command does what one command line says, in this process: it takes over signals, the log and the memory. It
// returns after the end of what it runs.
func command(args []string) error {
	if len(args) > 0 && args[0] == "witness" {
		return runWitness(args[1:])
	}
	if len(args) > 0 && args[0] == "guard" {
		return runGuard(args[1:])
	}
	if len(args) > 0 && args[0] == "apps" {
		return runApps(args[1:])
	}
	if len(args) > 0 && args[0] == "disk" {
		return runDisk(args[1:])
	}
	var o options
	f := flag.NewFlagSet("duetd", flag.ContinueOnError)
	f.StringVar(&o.dir, "dir", "/var/lib/duet", "`directory` of certificates, store and new images")
	f.StringVar(&o.socket, "socket", "/run/duet/duetd.sock", "unix `socket` of the API")
	f.StringVar(&o.run, "run", "/run/duet/volumes", "`directory` of the volumes' sockets")
	f.StringVar(&o.listen, "listen", "", "`address` of the API over TLS (default: all addresses, port 7422)")
	f.StringVar(&o.uri, "hypervisor", "qemu:///system", "libvirt `URI`")
	f.StringVar(&o.log, "log", "info", "`level`: debug, info, warn, error")
	f.StringVar(&o.watchdog, "watchdog", "", "`device` that resets this computer when the daemon hangs while it holds "+
		"guests, as /dev/watchdog")
	f.StringVar(&o.guard, "guard", guard.Socket(guard.Dir),
		"unix `socket` of \"duetd guard\", which pauses the guests here when the daemon dies; \"\": none")
	f.StringVar(&o.apps, "apps", stage.Dir, "`directory` of \"duetd apps\", which runs applications")
	f.BoolVar(&o.sleepy, "sleepy", false, "let CPUs sleep between replicated writes: saves power, makes a single writer "+
		"about half as fast")
	f.BoolVar(&o.admitRoot, "admit-root", false, "let programs of root open volumes beside the VMs they belong to, for "+
		"tests and rescue: "+
		"what two write at once is lost")
	f.StringVar(&o.images, "images", "/var/lib/libvirt/images,/srv,/mnt,/dev",
		"`directories`, with commas between, in which admins of "+
			"other nodes may name the place of an image on this one")
	f.BoolVar(&o.version, "version", false, "print the version and end")
	f.Usage = func() { fmt.Fprint(f.Output(), usage); f.PrintDefaults() }
	if err := f.Parse(args); err != nil {
		return usageError{err}
	}
	switch {
	case f.NArg() > 0:
		return usageError{fmt.Errorf("%q is too much: there are flags (--help shows them), \"duetd witness\", "+
			"\"duetd guard\" and \"duetd apps\"", f.Arg(0))}
	case o.version:
		fmt.Println(version.String())
		return nil
	}
	return run(o)
}

// Exit codes that say that another try ends the same way, so systemd makes none; a panic of Go ends with 2 and is tried
// again. They are those of sysexits.h.
const (
	exitError  = 1
	exitUsage  = 64 // a flag is wrong
	exitConfig = 78 // this node is in no cluster
)

// usageError is a command line that is wrong.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// exitCode is what systemd is told (RestartPreventExitStatus in the units); the reason may lie deep in err.
func exitCode(err error) int {
	switch usage := (usageError{}); {
	case errors.As(err, &usage):
		return exitUsage
	case errors.Is(err, membership.ErrNoMember):
		return exitConfig
	}
	return exitError
}

// The end of the daemon is bounded; systemd waits longer.
const (
	stopTime       = 20 * time.Second  // for the API's last calls, then the modules, then the word to the peers
	evacuationTime = 100 * time.Second // guests shut down in it
)

// run is the daemon. The order counts: memory is locked and the priority raised first, kept sockets are taken
// before any child could inherit them, systemd is told that the daemon is ready when the API answers. An error
// before that is its exit; systemd tries again, for as long as it takes, but for what exitCode says.
//
// Another signal during the end changes nothing: it is not ended half-way. systemd kills what takes longer than
// TimeoutStopSec, which is more than stopTime and evacuationTime together.
func run(o options) error {
	var level slog.Level
	if err := level.UnmarshalText([]byte(o.log)); err != nil {
		return usageError{fmt.Errorf("--log %s: say debug, info, warn or error", o.log)}
	}
	log := slog.New(slog.NewJSONHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
	slog.SetDefault(log) // libraries that log by the standard package
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	urgent(log)
	kept := sockets(log)
	hv, closeHV := hypervisor(o.uri, log)
	defer closeHV()
	n, err := node.New(node.Config{Dir: o.dir, Socket: o.socket, RunDir: o.run, Listen: o.listen,
		Version:    version.String(),
		Hypervisor: hv, Sockets: kept, Sleepy: o.sleepy, AdmitRoot: o.admitRoot, ImageDirs: strings.Split(o.images, ","),
		Watchdog: o.watchdog, Guard: o.guard, Apps: o.apps, Disk: diskCommand(), Logger: log})
	if err != nil {
		return err
	}
	if err := n.Start(); err != nil {
		return err
	}
	log.Info("duetd runs", "version", version.String(), "dir", o.dir, "socket", o.socket)
	// It returns when a signal came.
	ready(ctx, log)
	stopping()
	// Here and not in Stop: a restart of the daemon, or an upgrade, moves nothing.
	if computerStops(log) {
		log.Info("this computer goes down: its VMs move to their peers")
		evacuation, cancel := context.WithTimeout(context.Background(), evacuationTime)
		n.Evacuate(evacuation)
		cancel()
	}
	log.Info("duetd stops; VMs that are left go on when it is back")
	stopCtx, cancel := context.WithTimeout(context.Background(), stopTime)
	defer cancel()
	return n.Stop(stopCtx)
}
