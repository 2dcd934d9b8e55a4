// Command duetd is the daemon of one node. It runs until SIGTERM or SIGINT and
// leaves the VMs as they are: their writes wait for its next start. When the whole
// computer goes down it moves them to their peers first. "duetd witness" is the third
// voter instead.
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"duet/cmd/node"
)

// options are the flags.
type options struct {
	dir, socket, run, listen, uri, log string
	watchdog                           string
	version, sleepy, admitRoot         bool
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == "witness" {
		if err := runWitness(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, "duetd witness:", err)
			os.Exit(1)
		}
		return
	}
	var o options
	flag.StringVar(&o.dir, "dir", "/var/lib/duet", "`directory` of certificates, store and new images")
	flag.StringVar(&o.socket, "socket", "/run/duet/duetd.sock", "unix `socket` of the API")
	flag.StringVar(&o.run, "run", "/run/duet", "`directory` of the volumes' sockets")
	flag.StringVar(&o.listen, "listen", "", "`address` of the API over TLS (default: first address of the node, port 7422)")
	flag.StringVar(&o.uri, "hypervisor", "qemu:///system", "libvirt `URI`")
	flag.StringVar(&o.log, "log", "info", "`level`: debug, info, warn, error")
	flag.StringVar(&o.watchdog, "watchdog", "", "`device` that resets this computer when the daemon hangs while it holds guests, as /dev/watchdog")
	flag.BoolVar(&o.sleepy, "sleepy", false, "let CPUs sleep between replicated writes: saves power, makes a single writer about half as fast")
	flag.BoolVar(&o.admitRoot, "admit-root", false, "let programs of root open volumes beside the VMs they belong to, for tests and rescue: "+
		"what two write at once is lost")
	flag.BoolVar(&o.version, "version", false, "print the version and end")
	flag.Parse()
	if o.version {
		fmt.Println(version())
		return
	}
	if err := run(o); err != nil {
		fmt.Fprintln(os.Stderr, "duetd:", err)
		os.Exit(1)
	}
}

// The end of the daemon is bounded; systemd waits longer.
const (
	stopTime       = 20 * time.Second
	evacuationTime = 100 * time.Second // guests shut down in it
)

func run(o options) error {
	var level slog.Level
	if err := level.UnmarshalText([]byte(o.log)); err != nil {
		return fmt.Errorf("--log %s: %w", o.log, err)
	}
	log := slog.New(slog.NewJSONHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
	slog.SetDefault(log) // libraries that log by the standard package
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	urgent(log)
	hv, closeHV := hypervisor(o.uri, log)
	defer closeHV()
	n, err := node.New(node.Config{Dir: o.dir, Socket: o.socket, RunDir: o.run, Listen: o.listen, Version: version(),
		Hypervisor: hv, Sleepy: o.sleepy, AdmitRoot: o.admitRoot, Watchdog: o.watchdog, Logger: log})
	if err != nil {
		return err
	}
	if err := n.Start(); err != nil {
		return err
	}
	log.Info("duetd runs", "version", version(), "dir", o.dir, "socket", o.socket)
	ready(ctx, log)
	stopping()
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

// version is the revision the binary was built from.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	v, dirty := info.Main.Version, ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision" && len(s.Value) >= 12:
			v = s.Value[:12]
		case s.Key == "vcs.modified" && s.Value == "true":
			dirty = "+changes"
		}
	}
	return v + dirty
}
