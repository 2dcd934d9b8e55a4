package main

import (
	"fmt"
	"log/slog"
	"os"

	"duet/blockrepl/host"
)

// runDisk is duetd disk: the small process behind a block device of a volume, which the daemon starts and which goes
// on without it. It ends when its directory is unmounted.
func runDisk(args []string) error {
	if len(args) != 3 {
		return usageError{fmt.Errorf("duetd disk is run by duetd: it takes a directory, a socket and the name of an export")}
	}
	log := slog.New(slog.NewJSONHandler(os.Stderr, nil))
	if err := host.IntoWritePath(); err != nil {
		log.Warn("not marked as in the write path: the volume may stand still when memory is full of what is to be written "+
			"to it", "err", err)
	}
	stayInMemory(log)
	return host.Serve(args[0], args[1], args[2], log)
}

// diskCommand runs this program as that.
func diskCommand() []string {
	self, err := os.Executable()
	if err != nil {
		return nil
	}
	return []string{self, "disk"}
}
