// Command on runs tests of this module in a root of another Debian release:
//
//	go run ./testbed/machine/on -release 13 ./vmmanager/libvirt -test.run TestRealLibvirt -test.v
//	go run ./testbed/machine/on -release 13 -- virsh --version
//
// It is run in the folder of the module, by root. The first run makes the root, in some minutes. The root stays
// in the user's cache (duet-testbed/machine); what the tests wrote in their private copy is removed.
//
// Exit status: that of the test binary or program, 1 if it could not be run.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"duet/testbed/machine"
)

func main() {
	release := flag.Int("release", int(machine.Debian13), "Debian release: 12 or 13")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	err := run(ctx, machine.Release(*release), flag.Args())
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() > 0 {
		stop()
		os.Exit(exit.ExitCode())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "on:", err)
		stop()
		os.Exit(1)
	}
}

// run: what does not begin with ./ is a program inside, looked up there; the flag package has taken the --
// before it.
func run(ctx context.Context, release machine.Release, args []string) error {
	if release.Codename() == "" || len(args) == 0 {
		return errors.New("want -release 12 or 13 and what to run: ./PACKAGE FLAGS of a test binary, or -- PROGRAM ARGUMENTS")
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return err
	}
	cache = filepath.Join(cache, "duet-testbed")
	if !strings.HasPrefix(args[0], "./") {
		im, err := machine.Suite(ctx, cache, release)
		if err != nil {
			return err
		}
		return im.Exec(ctx, machine.Command{Args: args}, os.Stdout, os.Stderr)
	}
	module, err := os.Getwd()
	if err != nil {
		return err
	}
	tests, err := machine.NewTests(ctx, cache, module, release)
	if err != nil {
		return err
	}
	return tests.Run(ctx, args[0], args[1:], os.Stdout, os.Stderr)
}
