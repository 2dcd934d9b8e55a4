package machine

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// child is a process on which a machine lives. It dies with this process. A nil child does not run.
type child struct {
	cmd   *exec.Cmd     // its ProcessState is for whoever has seen ended
	ended chan struct{} // closed when it was reaped
}

// start runs a program whose output is appended to a file. It keeps this process's environment but for env. The
// child is returned also with an error, as one that ends at once.
func start(output string, env []string, name string, args ...string) (*child, error) {
	out, err := os.OpenFile(output, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	c := &child{cmd: exec.Command(name, args...), ended: make(chan struct{})}
	c.cmd.Stdout, c.cmd.Stderr, c.cmd.Env = out, out, append(os.Environ(), env...)
	// A session of its own: a ctrl-C at the terminal is for the test. Linux sends the death signal when the thread ends
	// that started the process, so one is kept for it.
	c.cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true, Pdeathsig: unix.SIGKILL}
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		err := c.cmd.Start()
		started <- err
		if err == nil {
			_ = c.cmd.Wait() // the result stays in cmd.ProcessState
		}
		close(c.ended)
	}()
	return c, <-started
}

func (c *child) running() bool {
	if c == nil {
		return false
	}
	select {
	case <-c.ended:
		return false
	default:
		return true
	}
}

// signal: one that has ended is no error.
func (c *child) signal(sig os.Signal) error {
	if err := c.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return nil
}

// state says how it ended. It is valid after ended only.
func (c *child) state() *os.ProcessState { return c.cmd.ProcessState }

// tail returns the end of a file. It is for messages: a file that cannot be read has none.
func tail(path string) string {
	const last = 2 << 10
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	if st, err := f.Stat(); err == nil && st.Size() > last {
		_, _ = f.Seek(-last, io.SeekEnd) // else it is all of it
	}
	text, _ := io.ReadAll(f)
	return strings.TrimSpace(string(text))
}
