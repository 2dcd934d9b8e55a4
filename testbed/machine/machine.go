package machine

import (
	"context"
	"fmt"
	"strings"
)

// Machine is a computer with a Debian of its own. Its methods are for one goroutine, but for Kill and Console.
// Boot and Reboot may be given minutes by ctx; after an error of theirs the machine is off, or is to be killed.
type Machine interface {
	// Name is its host name.
	Name() string
	// Boot switches it on and returns when its system says that it is up. Its disk is as it was when it went off.
	Boot(ctx context.Context) error
	// Run runs a shell command as root and returns how it ended; the error says why that could not be found out.
	Run(ctx context.Context, command string) (Result, error)
	// Push copies a file of this computer to a path inside, with its mode, as root's.
	Push(ctx context.Context, file, path string) error
	// Kill is the loss of its power: it falls silent and nothing in it runs when Kill returns. What was written but not
	// yet synced is lost or not, as on any disk. Killing a machine that is off does nothing.
	Kill() error
	// Reboot asks its system to reboot and returns when it is up again.
	Reboot(ctx context.Context) error
	// Console is the file that its console is appended to.
	Console() string
	// Close kills it and removes its disk.
	Close() error
}

// Result is how a command ended.
type Result struct {
	Output string // both streams, as they came, without the last line break
	Code   int    // the shell's exit code, -1 if a signal ended it
}

// Do runs a command on a machine and returns its output. A code other than 0 is an error with the output in it.
func Do(ctx context.Context, m Machine, command string) (string, error) {
	r, err := m.Run(ctx, command)
	if err == nil && r.Code != 0 {
		err = fmt.Errorf("%s# %s: exit code %d: %s", m.Name(), command, r.Code, strings.TrimSpace(r.Output))
	}
	return r.Output, err
}
