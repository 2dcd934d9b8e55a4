//go:build linux

package libvirt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// defaultRunDir is where libvirtd keeps the run-time files of system guests, as QEMU sees it.
const defaultRunDir = "/run/libvirt/qemu"

// process is one QEMU, held by a pidfd, so its number cannot come to mean another process. Its fd is closed once,
// by closeAll.
type process struct {
	pid int
	fd  int
}

// findProcesses returns the QEMU processes that run the VM for the libvirtd with
// that run directory. The caller closes them. All of /proc is read, which needs nobody's answer. What ends
// meanwhile is not among them; an error means that it is not known whether there are some.
func findProcesses(runDir, name string) ([]process, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("look for the guest's process: %w", err)
	}
	var found []process
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || shows(pid, name) == "" {
			continue
		}
		fd, err := unix.PidfdOpen(pid, 0)
		if errors.Is(err, unix.ESRCH) {
			continue
		}
		if err != nil {
			closeAll(found)
			return nil, fmt.Errorf("open process %d: %w", pid, err)
		}
		p := process{pid, fd}
		// Look again now that the number is pinned.
		if at := shows(pid, name); at == "" || !sees(at, runDir) {
			p.close()
			continue
		}
		found = append(found, p)
	}
	return found, nil
}

// shows returns where in /proc the process shows that it is a QEMU for a VM of that name; "" if it is none. One whose
// main thread has exited has no command line any more, while another thread may still be in the kernel and write: then
// it is that thread. One all of whose threads have let go of their memory is not found.
func shows(pid int, name string) string {
	at := filepath.Join("/proc", strconv.Itoa(pid))
	is := func(at string) (is, exited bool) {
		cmdline, err := os.ReadFile(filepath.Join(at, "cmdline"))
		return err == nil && guestName(cmdline) == name && name != "", err == nil && len(cmdline) == 0
	}
	found, exited := is(at)
	if found {
		return at
	}
	if !exited {
		return ""
	}
	threads, err := os.ReadDir(filepath.Join(at, "task"))
	if err != nil {
		return "" // it has just ended
	}
	for _, t := range threads {
		thread := filepath.Join(at, "task", t.Name())
		if found, _ := is(thread); found {
			return thread
		}
	}
	return ""
}

// guestName returns the VM's name in the command line of a QEMU started by
// libvirt ("-name", "guest=web01,debug-threads=on"; commas inside are doubled); "" if it is not one.
func guestName(cmdline []byte) string {
	args := bytes.Split(cmdline, []byte{0})
	for i, arg := range args {
		if string(arg) != "-name" || i+1 == len(args) {
			continue
		}
		rest, ok := strings.CutPrefix(string(args[i+1]), "guest=")
		if !ok {
			return ""
		}
		const comma = "\x00" // cannot be part of an argument
		rest, _, _ = strings.Cut(strings.ReplaceAll(rest, ",,", comma), ",")
		return strings.ReplaceAll(rest, comma, ",")
	}
	return ""
}

// sees reports whether our run directory is the one that the process at that place in /proc has at libvirt's
// place for it: VMs of the same name may run for another libvirtd in other
// namespaces of this computer.
func sees(at, runDir string) bool {
	ours, err := os.Stat(runDir)
	if err != nil {
		return false // this libvirtd never ran
	}
	theirs, err := os.Stat(filepath.Join(at, "root", defaultRunDir))
	return err == nil && os.SameFile(ours, theirs)
}

// kill ends the process at once; it is gone when wait returns.
func (p process) kill() error {
	err := unix.PidfdSendSignal(p.fd, unix.SIGKILL, nil, 0)
	if err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("kill process %d: %w", p.pid, err)
	}
	return nil
}

// wait returns when no thread of the process is left, so that it can write no more. A pidfd becomes readable then
// (pidfd_open(2)). A thread that waits in the kernel for a disk keeps it from that as long as the disk does; ctx is
// looked at every 20 ms.
func (p process) wait(ctx context.Context) error {
	for {
		fds := []unix.PollFd{{Fd: int32(p.fd), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, int((20 * time.Millisecond).Milliseconds()))
		switch {
		case err != nil && !errors.Is(err, unix.EINTR):
			return fmt.Errorf("wait for process %d: %w", p.pid, err)
		case n > 0:
			return nil
		case ctx.Err() != nil:
			return fmt.Errorf("wait for process %d: %w", p.pid, ctx.Err())
		}
	}
}

func (p process) close() { _ = unix.Close(p.fd) }

func closeAll(ps []process) {
	for _, p := range ps {
		p.close()
	}
}
