package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"duet/appmodules/stage"
	"duet/blockrepl/host"
)

const appsUsage = `duetd apps does on this host what applications need: it makes block devices of volumes,
mounts them, takes addresses and runs commands, as duetd tells it. systemd runs it beside duetd.

`

// runApps is duetd apps. It ends with a signal and leaves the applications as they are, to its next run.
func runApps(args []string) error {
	cfg := stage.Config{Program: diskCommand(), Logger: slog.New(slog.NewJSONHandler(os.Stderr, nil))}
	f := flag.NewFlagSet("duetd apps", flag.ContinueOnError)
	f.StringVar(&cfg.Dir, "run", stage.Dir, "`directory` of its socket, mounts and notes; it must be in memory")
	f.StringVar(&cfg.Volumes, "volumes", "/run/duet/volumes", "`directory` of the volumes' sockets")
	f.Usage = func() { fmt.Fprint(f.Output(), appsUsage); f.PrintDefaults() }
	if err := f.Parse(args); err != nil {
		return usageError{err}
	}
	if f.NArg() > 0 {
		return usageError{fmt.Errorf("%q is too much: there are flags (--help shows them)", f.Arg(0))}
	}
	slog.SetDefault(cfg.Logger)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	cfg.Logger.Info("duetd apps runs", "dir", cfg.Dir)
	return stage.Serve(ctx, cfg)
}

// runDisk is duetd disk: the small process behind a block device of a volume, which duetd apps starts and which goes
// on without it. It ends when its directory is unmounted.
func runDisk(args []string) error {
	if len(args) != 3 {
		return usageError{errors.New("duetd disk is run by duetd apps: it takes a directory, a socket and the name of an " +
			"export")}
	}
	log := slog.New(slog.NewJSONHandler(os.Stderr, nil))
	if err := host.IntoWritePath(); err != nil {
		log.Warn("not marked as in the write path: the volume may stand still when memory is full of what is to be written "+
			"to it", "err", err)
	}
	stayInMemory(log)
	return host.Serve(args[1], args[2], log) // the directory is what tells it from others
}

// diskCommand runs this program as that.
func diskCommand() []string {
	self, err := os.Executable()
	if err != nil {
		return nil
	}
	return []string{self, "disk"}
}
