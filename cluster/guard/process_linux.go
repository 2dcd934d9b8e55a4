package guard

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Now is the time since this computer booted, suspend included: the same for all its processes.
func Now() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic("guard: no CLOCK_BOOTTIME: " + err.Error()) // Linux has it since 2.6.39
	}
	return time.Duration(ts.Nano())
}

// StartOf tells when a process began, in the kernel's ticks since boot. With its number that names a process for ever.
func StartOf(pid int) (uint64, error) {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return 0, fmt.Errorf("look at process %d: %w", pid, err)
	}
	// The program's name, in brackets, may hold anything; what follows is numbered from 3 in proc(5), the start is 22.
	_, rest, ok := bytes.Cut(text[bytes.LastIndexByte(text, ')')+1:], []byte{' '})
	fields := bytes.Fields(rest)
	if !ok || len(fields) < 20 {
		return 0, fmt.Errorf("look at process %d: its stat is %q", pid, text)
	}
	return strconv.ParseUint(string(fields[19]), 10, 64)
}

// errGone is returned for a process that has ended.
var errGone = errors.New("the process has ended")

// process is one process, held so that its number cannot come to mean another one.
type process struct {
	pid   int
	start uint64
	fd    int
}

// openProcess holds the process that began at start.
func openProcess(pid int, start uint64) (*process, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil, errGone
	}
	if err != nil {
		return nil, fmt.Errorf("open process %d: %w", pid, err)
	}
	p := &process{pid, start, fd}
	if began, err := StartOf(pid); err != nil || began != start { // looked at now that the number is pinned
		p.close()
		return nil, errGone
	}
	return p, nil
}

// signal sends one. A process that has ended is no error, for nothing was left to do.
func (p *process) signal(s unix.Signal) error {
	if err := unix.PidfdSendSignal(p.fd, s, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("send %s to process %d: %w", unix.SignalName(s), p.pid, err)
	}
	return nil
}

// do carries out a verb.
func (p *process) do(v verb) error {
	return p.signal([...]unix.Signal{pause: unix.SIGSTOP, resume: unix.SIGCONT, end: unix.SIGKILL}[v])
}

// stopped: it is paused by a signal, whoever sent it.
func (p *process) stopped() bool {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(p.pid), "stat"))
	at := bytes.LastIndexByte(text, ')') + len(") ")
	return err == nil && at < len(text) && text[at] == 'T'
}

// ended: no thread of it is left. A pidfd is readable when the process has ended, pidfd_open(2); a zombie has ended.
func (p *process) ended() bool {
	fds := []unix.PollFd{{Fd: int32(p.fd), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n > 0
}

func (p *process) close() { _ = unix.Close(p.fd) }

// Continue lets a process go on that a guard, which is gone, has paused; on one that runs it has no effect.
func Continue(pid int, start uint64) error {
	p, err := openProcess(pid, start)
	if errors.Is(err, errGone) {
		return nil
	}
	if err != nil {
		return err
	}
	defer p.close()
	return p.do(resume)
}

// lock makes sure that one guard runs in a directory at a time; the kernel undoes it when the process ends.
func lock(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close() // nothing was written
		return nil, fmt.Errorf("another guard runs in %s: %w", dir, err)
	}
	return f, nil
}
