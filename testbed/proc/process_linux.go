package proc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"time"

	"golang.org/x/sys/unix"
)

// Spec says what to run.
type Spec struct {
	Path   string   // looked up in PATH if it has no slash
	Args   []string // without the name of the program
	Env    []string // added to the caller's environment
	Dir    string   // working folder, "" = /
	Output string   // file that standard output and error are appended to; "" = nowhere
	Store  *Store   // of the service that this process is a run of; nil = none
}

// Process is a process of a node. It ends by itself, by a signal or with its node.
type Process struct {
	name string        // for errors: the path as it was found
	cmd  *exec.Cmd     // its ProcessState is for whoever has seen done
	done chan struct{} // closed when the process was reaped
}

// Start runs a process in the node and does not wait for it. ErrDown if the node is off. The folder of Output is
// this computer's, everything else is looked up inside. The caller need not wait for it: it is reaped by a
// goroutine.
func (n *Node) Start(spec Spec) (*Process, error) {
	var out *os.File
	if spec.Output != "" {
		var err error
		if out, err = os.OpenFile(spec.Output, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644); err != nil {
			return nil, fmt.Errorf("start %s on %s: %w", spec.Path, n.cfg.Name, err)
		}
		defer out.Close() // the process has its own copy by then
	}
	var kept []*os.File
	run := spec
	if spec.Store != nil {
		spec.Store.mu.Lock()
		defer spec.Store.mu.Unlock()
		run, kept = spec.Store.extend(spec)
	}
	p, err := n.start(func() *exec.Cmd {
		cmd := exec.Command(run.Path, run.Args...)
		cmd.Dir, cmd.Env, cmd.ExtraFiles = run.Dir, append(os.Environ(), run.Env...), kept
		if out != nil {
			cmd.Stdout, cmd.Stderr = out, out
		}
		return cmd
	})
	if err != nil {
		return nil, fmt.Errorf("start %s on %s: %w", spec.Path, n.cfg.Name, err)
	}
	return p, nil
}

// start forks on a thread that entered the namespaces of process 1. command is called there, so that programs are
// looked up in the node's own files.
func (n *Node) start(command func() *exec.Cmd) (*Process, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.first == nil {
		return nil, ErrDown
	}
	var cmd *exec.Cmd
	err := onThread(func() error {
		if err := enter(n.first.Process.Pid); err != nil {
			return err
		}
		cmd = command()
		if cmd.Dir == "" {
			cmd.Dir = "/"
		}
		// A session of its own: no terminal signal reaches it, nor does it see the test's terminal.
		cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true}
		return cmd.Start()
	})
	if err != nil {
		return nil, err
	}
	p := &Process{name: cmd.Path, cmd: cmd, done: make(chan struct{})}
	n.alive.Go(func() {
		defer close(p.done)
		_ = cmd.Wait() // the result stays in cmd.ProcessState
	})
	return p, nil
}

// enter moves the calling thread into all namespaces of process pid, for good. Its own process-id namespace cannot
// change any more: only the processes it starts are in the new one.
func enter(pid int) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return fmt.Errorf("find process 1: %w", err)
	}
	defer unix.Close(fd)
	// A thread that shares its working folder with others may not change its mounts.
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("leave the working folder: %w", err)
	}
	const all = unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWNET
	if err := unix.Setns(fd, all); err != nil {
		return fmt.Errorf("enter namespaces: %w", err)
	}
	return nil
}

// Run runs a command in the node to its end and returns its standard output; the error holds its standard error.
// When ctx ends the command is killed. Output may be there beside an error. A child that stays behind is not
// killed.
func (n *Node) Run(ctx context.Context, name string, args ...string) ([]byte, error) {
	var out, fault bytes.Buffer
	p, err := n.start(func() *exec.Cmd {
		cmd := exec.Command(name, args...)
		cmd.Stdout, cmd.Stderr = &out, &fault
		cmd.WaitDelay = time.Second // a child that it leaves behind may keep the pipes open
		return cmd
	})
	if err != nil {
		return nil, fmt.Errorf("run %s on %s: %w", name, n.cfg.Name, err)
	}
	code, err := p.Wait(ctx)
	if err != nil {
		err = errors.Join(err, p.Kill())
		<-p.done
	} else if code != 0 {
		err = fmt.Errorf("exit code %d: %s", code, bytes.TrimSpace(fault.Bytes()))
	}
	if err != nil {
		return out.Bytes(), fmt.Errorf("run %s on %s: %w", name, n.cfg.Name, err)
	}
	return out.Bytes(), nil
}

// PID returns the process id as seen outside the node.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Wait waits for the end of the process and returns its exit code, -1 if a signal ended it. The error is that of ctx.
func (p *Process) Wait(ctx context.Context) (int, error) {
	select {
	case <-p.done:
		return p.cmd.ProcessState.ExitCode(), nil
	case <-ctx.Done():
		return -1, fmt.Errorf("wait for %s: %w", p.name, ctx.Err())
	}
}

// Signal sends a signal. A process that has ended is no error.
func (p *Process) Signal(sig os.Signal) error {
	if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("signal %s: %w", p.name, err)
	}
	return nil
}

// Kill kills this process alone, at once. Its children go on.
func (p *Process) Kill() error { return p.Signal(unix.SIGKILL) }

// Freeze stops this process alone until Thaw. It does not wait until the process stands still; Node.Freeze does.
func (p *Process) Freeze() error { return p.Signal(unix.SIGSTOP) }

// Thaw lets the process go on.
func (p *Process) Thaw() error { return p.Signal(unix.SIGCONT) }
