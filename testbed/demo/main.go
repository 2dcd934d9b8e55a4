// Command demo shows the main job on this computer with real parts: two hosts, two
// VMs, one host killed, nothing lost. `make demo` runs it.
//
// It needs root and what testcluster needs. One demo runs at a time on a computer, as its namespaces have fixed
// names. When it ends its processes and namespaces are gone, and after a success its folder too; -keep waits for
// ctrl-C before that. The kernel of the test VM stays in -cache.
//
// What it shows is measured, not told: each step fails the demo if it does not come true. Boots are emulated, so
// times with a boot in them say nothing of a real host.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"duet/testbed/testcluster"
)

func main() {
	keep := flag.Bool("keep", false, "leave the cluster up until ctrl-C")
	bin := flag.String("bin", "bin", "`directory` with duet and duetd")
	cache := flag.String("cache", ".cache", "`directory` for the test VM's kernel")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *bin, *cache, *keep); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// run: the first error counts; its text then says where the logs are.
func run(ctx context.Context, bin, cache string, keep bool) (err error) {
	if os.Geteuid() != 0 {
		return errors.New("needs root: it makes network namespaces and runs libvirtd; try `sudo make demo`")
	}
	if bin, err = filepath.Abs(bin); err != nil {
		return err
	}
	if cache, err = filepath.Abs(cache); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "duet-demo")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("%w (logs stay in %s)", err, dir)
		} else {
			err = os.RemoveAll(dir)
		}
	}()
	s := &show{began: time.Now()}
	s.title("Two hosts on this computer, each with its own libvirtd and duetd")
	l, err := testcluster.New(ctx, testcluster.Config{Prefix: "duet", Dir: dir, Bin: bin, Cache: cache, Subnet: 1})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	d := &demo{cluster: l, show: s, a: l.Hosts[testcluster.Alpha], b: l.Hosts[testcluster.Beta]}
	if err := d.run(ctx); err != nil {
		if keep {
			s.keep(ctx, l)
		}
		return err
	}
	if keep {
		s.keep(ctx, l)
	}
	return nil
}
