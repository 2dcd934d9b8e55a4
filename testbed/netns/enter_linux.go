package netns

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	vnetns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// errUnfinished is reported by Do when fn ended its goroutine instead of returning.
var errUnfinished = errors.New("function did not return")

// Do runs fn in the network namespace of a node and returns its error. fn runs on an operating system thread of
// its own, which dies afterwards instead of returning, so the namespace cannot leak into other goroutines.
// Sockets that fn opens stay in the namespace for their life; goroutines that fn starts are not in it. It blocks
// for as long as fn does. Several may be in one namespace at a time.
func (l *LAN) Do(node string, fn func() error) error {
	done := make(chan error, 1)
	go func() {
		err := errUnfinished
		defer func() { done <- err }()
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		ns, e := vnetns.GetFromPath(l.Path(node))
		if e != nil {
			err = fmt.Errorf("open namespace of %s: %w", node, e)
			return
		}
		defer ns.Close()
		if e := vnetns.Set(ns); e != nil {
			err = fmt.Errorf("enter namespace of %s: %w", node, e)
			return
		}
		err = fn()
	}()
	return <-done
}

// output runs a command to its end and returns what it printed.
func output(name string, args ...string) ([]byte, error) {
	return finish(exec.Command(name, args...))
}

// finish runs a command on the calling thread's behalf: its child is in the namespace that the thread has
// entered.
func finish(cmd *exec.Cmd) ([]byte, error) {
	var fault bytes.Buffer
	cmd.Stderr = &fault
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("run %s: %w: %s", strings.Join(cmd.Args, " "), err, bytes.TrimSpace(fault.Bytes()))
	}
	return out, nil
}

// sweep removes every namespace of a prefix and kills the processes in them. The caller holds the lock of the
// prefix, so they belong to nobody alive or to the caller. It is called by New before there is anything of its
// own, and by Close.
func sweep(prefix string) error {
	paths, err := filepath.Glob(filepath.Join(folder, prefix+"-*"))
	if err != nil {
		return fmt.Errorf("list namespaces: %w", err)
	}
	var errs []error
	for _, path := range paths {
		errs = append(errs, remove(path))
	}
	return errors.Join(errs...)
}

// remove kills the processes in a namespace and takes its name away. The namespace itself goes when its last
// process and socket have gone, some time later.
func remove(path string) error {
	err := killInside(path)
	// A file without a mount is what a crash between the two steps of ip netns add leaves.
	if e := unix.Unmount(path, unix.MNT_DETACH); e != nil && !errors.Is(e, unix.EINVAL) {
		err = errors.Join(err, fmt.Errorf("unmount %s: %w", path, e))
	}
	return errors.Join(err, os.Remove(path))
}

// killInside ends every process in the network namespace that path stands for. This process is spared, though a
// thread of its own may be in there. A process that forks while it looks may be missed; it keeps a network
// without links.
func killInside(path string) error {
	var want unix.Stat_t
	if err := unix.Stat(path, &want); err != nil {
		return fmt.Errorf("look at %s: %w", path, err)
	}
	procs, err := filepath.Glob("/proc/[0-9]*/ns/net")
	if err != nil {
		return err
	}
	for _, p := range procs {
		var got unix.Stat_t
		if unix.Stat(p, &got) != nil || got.Ino != want.Ino || got.Dev != want.Dev {
			continue // another namespace, or a process that is gone by now
		}
		pid, err := strconv.Atoi(strings.Split(p, "/")[2])
		if err != nil || pid == os.Getpid() {
			continue
		}
		if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("kill %d in %s: %w", pid, path, err)
		}
	}
	return nil
}
