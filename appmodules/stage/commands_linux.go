package stage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"duet/appmodules"
)

// Commands are a pair of shell commands. Every process of theirs has Mark in its environment, and is found by it.
type Commands struct {
	Part   appmodules.Part
	Mark   string   // DUET_PART=, and what no other part of any module on this host has
	Env    []string // besides that of the daemon
	Flag   string   // a file below /run that is there from before the start until after the stop
	Logger *slog.Logger
}

// Label is the name of the pair.
func (c *Commands) Label() string { return c.Part.Name }

// Up: it was started on this run of the host and not stopped since. Whether it works is for checkers.
func (c *Commands) Up(context.Context) (up, whole bool, err error) {
	text, err := os.ReadFile(c.Flag)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return len(c.processes()) > 0, false, nil
	case err != nil:
		return false, false, err
	}
	return true, string(text) == started, nil
}

// What a flag says.
const (
	starting = "starting\n"
	started  = "started\n"
)

// Start runs the start command to its end.
func (c *Commands) Start(ctx context.Context) error {
	if err := c.flag(starting); err != nil {
		return err
	}
	if err := c.run(ctx, "start", c.Part.Start); err != nil {
		return err
	}
	return c.flag(started)
}

// flag writes the flag.
func (c *Commands) flag(text string) error {
	if err := os.MkdirAll(filepath.Dir(c.Flag), 0o700); err != nil {
		return err
	}
	return os.WriteFile(c.Flag, []byte(text), 0o600)
}

// Stop runs the stop command to its end, and ends what is left of it.
func (c *Commands) Stop(ctx context.Context) error {
	if err := c.run(ctx, "stop", c.Part.Stop); err != nil {
		return err
	}
	return c.Kill(ctx)
}

// Kill ends every process of it at once.
func (c *Commands) Kill(ctx context.Context) error {
	for {
		left := c.processes()
		if len(left) == 0 {
			break
		}
		for _, pid := range left {
			_ = unix.Kill(pid, unix.SIGKILL) // one that has ended is gone
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("processes %v do not end: %w", left, ctx.Err())
		case <-time.After(5 * time.Millisecond):
		}
	}
	if err := os.Remove(c.Flag); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// processes are those with the mark.
func (c *Commands) processes() (all []int) {
	found, _ := filepath.Glob("/proc/[0-9]*/environ")
	mark := append([]byte(c.Mark), 0)
	for _, path := range found {
		text, err := os.ReadFile(path)
		if err != nil || !bytes.HasPrefix(text, mark) && !bytes.Contains(text, append([]byte{0}, mark...)) {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path))); err == nil {
			all = append(all, pid)
		}
	}
	return all
}

// said is how much of what a command says is kept, in bytes.
const said = 4096

// run runs one of the commands in a session of its own, within its time. One that is cut off is ended with all that it
// has started itself; what an earlier start has left is not.
func (c *Commands) run(ctx context.Context, verb, text string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, c.Part.Limit(), fmt.Errorf("it took longer than %s", c.Part.Limit()))
	defer cancel()
	out, err := os.CreateTemp("", "duet-")
	if err != nil {
		return err
	}
	defer out.Close()
	os.Remove(out.Name())
	cmd := exec.Command("/bin/sh", "-c", text)
	cmd.Env = append(append(os.Environ(), c.Env...), c.Mark)
	cmd.Dir, cmd.Stdout, cmd.Stderr = "/", out, out // a file: what goes on in the background keeps no pipe open
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err = <-ended:
	case <-ctx.Done():
		_ = unix.Kill(-cmd.Process.Pid, unix.SIGKILL)
		<-ended
		err = context.Cause(ctx)
	}
	words := tail(out)
	c.Logger.Info("ran a command", "part", c.Part.Name, "command", verb, "err", err, "said", words)
	if err != nil {
		return fmt.Errorf("its %s command failed: %w%s", verb, err, words)
	}
	return nil
}

// tail is the end of what a command said, as the end of a sentence.
func tail(f *os.File) string {
	end, err := f.Seek(0, 2)
	if err != nil || end == 0 {
		return ""
	}
	b := make([]byte, min(end, said))
	n, _ := f.ReadAt(b, end-int64(len(b)))
	return ": " + strings.TrimSpace(strings.ToValidUTF8(string(b[:n]), "?"))
}
