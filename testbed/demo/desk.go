package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"duet/testbed/netns"
	"duet/testbed/testcluster"
)

// desk does for a visitor what cannot be typed on a host: it switches hosts off and on, cuts their network, and has a
// witness. What it is asked for comes in files, from the program that install makes. One goroutine uses it.
type desk struct {
	cluster *testcluster.Cluster
	on      map[string]func() // by host that is on: ends its unit, and waits for that
}

// serve keeps the daemon of a host alive until ctx ends or the host is switched off.
func (d desk) serve(ctx context.Context, h *testcluster.Host) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		unit{h}.run(ctx)
	}()
	d.on[h.Name] = func() { cancel(); <-done }
}

// close returns when nothing is kept alive any more.
func (d desk) close() {
	for _, end := range d.on {
		end()
	}
}

// usage is what may be asked for.
const usage = "say kill alpha, boot alpha (or beta), cut, heal or witness"

// do does it, and returns when it is done: a host that boots has a daemon that answers then.
func (d desk) do(ctx context.Context, what string) error {
	verb, name, _ := strings.Cut(what, " ")
	h, known := d.cluster.Hosts[name]
	end, on := d.on[name]
	apart := netns.Between(testcluster.Alpha, testcluster.Beta, "")
	switch {
	case what == "cut":
		return d.cluster.LAN.Cut(apart...)
	case what == "heal":
		return d.cluster.LAN.Restore(apart...)
	case what == "witness":
		if err := d.cluster.StartWitness(ctx); err != nil {
			return err
		}
		return d.cluster.AddWitness(ctx)
	case !known || verb != "kill" && verb != "boot":
		return errors.New(usage)
	case on == (verb == "boot"):
		return fmt.Errorf("%s is %s already", name, map[bool]string{true: "on", false: "off"}[on])
	case on:
		end()
		delete(d.on, name)
		return h.Kill()
	}
	return d.boot(ctx, h)
}

// boot switches a host on. Its daemon starts also if it was stopped before.
func (d desk) boot(ctx context.Context, h *testcluster.Host) error {
	if err := h.Boot(ctx); err != nil {
		return err
	}
	for _, name := range []string{stopFile, stoppedFile} {
		_ = os.Remove(filepath.Join(unit{h}.dir(), name)) // mostly there is none
	}
	if _, err := door(d.cluster, h.Name); err != nil { // the one of its last boot leads nowhere
		return err
	}
	if err := h.StartDuetd(ctx); err != nil {
		return err
	}
	d.serve(ctx, h)
	return nil
}

// ask is the program beside the doors that asks the desk, and waits until it is done.
const ask = `#!/bin/sh
cd '%s' 2>/dev/null || { echo "the demo has ended" >&2; exit 1; }
echo "$*" >$$.new && mv $$.new $$.asked
until [ -e $$.said ]; do
	[ -e $$.asked ] || [ -e $$.said ] || { echo "the demo has ended" >&2; exit 1; }
	sleep 0.1
done
[ ! -s $$.said ] || { cat $$.said >&2; exit 1; }
`

// install makes the program in bin and returns the directory through which it asks.
func (d desk) install(bin string) (dir string, remove func(), err error) {
	if dir, err = os.MkdirTemp("", "duet-desk"); err != nil {
		return "", nil, err
	}
	file := filepath.Join(bin, "hosts")
	if err := os.WriteFile(file, fmt.Appendf(nil, ask, dir), 0o755); err != nil {
		return "", nil, errors.Join(err, os.RemoveAll(dir))
	}
	return dir, func() { _, _ = os.Remove(file), os.RemoveAll(dir) }, nil
}

// run does what is asked for through dir until ctx ends, one after the other.
func (d desk) run(ctx context.Context, dir string) {
	for tick := time.Tick(again / 2); ; {
		select {
		case <-tick:
		case <-ctx.Done():
			return
		}
		asked, _ := filepath.Glob(filepath.Join(dir, "*.asked"))
		for _, file := range asked {
			answer(file, func(what string) error { return d.do(ctx, what) })
		}
	}
}

// answer does what a file asks for and says what came of it: nothing is that it is done.
func answer(file string, do func(what string) error) {
	said := ""
	what, err := os.ReadFile(file)
	if err == nil {
		err = do(strings.TrimSpace(string(what)))
	}
	if err != nil {
		said = err.Error() + "\n"
	}
	to := strings.TrimSuffix(file, ".asked")
	err = os.WriteFile(to+".new", []byte(said), 0o600)
	if err = errors.Join(err, os.Rename(to+".new", to+".said"), os.Remove(file)); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
	}
}
