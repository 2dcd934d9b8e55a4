package fence

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// job is one run of an agent.
type job struct {
	program string
	input   string
	path    []string // folders of programs that the agent starts, beside the system's
}

// execute runs a job to its end and returns its exit code, -1 if a signal ended it. When ctx ends first,
// the error is its cause. No process of the agent's group is left when it returns.
func execute(ctx context.Context, j job, out, diag io.Writer) (code int, err error) {
	if ctx.Err() != nil {
		return -1, context.Cause(ctx)
	}
	cmd := exec.Command(j.program)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(j.input), out, diag
	cmd.Dir = "/"
	// Nothing of the daemon's environment, such as the socket of systemd's watchdog, is the agent's.
	cmd.Env = []string{"LC_ALL=C", "PATH=" + strings.Join(
		append([]string{"/usr/sbin", "/usr/bin", "/sbin", "/bin"}, j.path...), ":")}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = leftover
	if err := cmd.Start(); err != nil {
		return -1, fmt.Errorf("start %s: %w", j.program, err)
	}
	over := attend(ctx, cmd.Process.Pid)
	err = cmd.Wait()
	var exit *exec.ExitError
	switch {
	case over != nil:
		return -1, over
	case err != nil && !errors.As(err, &exit) && !errors.Is(err, exec.ErrWaitDelay):
		return -1, fmt.Errorf("run %s: %w", j.program, err)
	}
	return cmd.ProcessState.ExitCode(), nil
}

// attend waits until the process is dead and ends its group: politely when ctx ends, and whatever is left
// at the end in any case. The process is not reaped, so that the group's number cannot become another's.
func attend(ctx context.Context, pid int) (over error) {
	dead := make(chan struct{})
	go func() {
		defer close(dead)
		for unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil) == unix.EINTR {
		}
	}()
	select {
	case <-dead:
	case <-ctx.Done():
		over = context.Cause(ctx)
		_ = unix.Kill(-pid, unix.SIGTERM) // it may just have ended
		timer := time.NewTimer(grace)
		defer timer.Stop()
		select {
		case <-dead:
		case <-timer.C:
		}
	}
	_ = unix.Kill(-pid, unix.SIGKILL)
	<-dead
	return over
}
