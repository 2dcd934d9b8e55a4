package fence

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// ErrNotOff is wrapped by every error of Off: no level was confirmed to be off.
var ErrNotOff = errors.New("not confirmed off")

// ErrNoAgent is returned when the program of an agent is not installed.
var ErrNoAgent = errors.New("fence agent is not installed")

// Times that are added to a command whose time is over.
const (
	grace    = time.Second // from SIGTERM to SIGKILL
	leftover = time.Second // for output of processes that left the agent's group
)

// Exit codes of an agent.
const (
	exitDone = 0 // of status: on
	exitOff  = 2 // of status
)

// Config is what a Fencer needs.
type Config struct {
	// Path are the folders of the agents, first match wins; nil is those of $PATH and /usr/sbin.
	Path []string
	// Logger gets each command and its end; it must be set.
	Logger *slog.Logger
}

// Fencer runs fence agents. It has no state: its methods may be called by several goroutines, and each
// call runs the agents anew. Whoever asks for many modules at once shares one answer among them,
// because devices such as BMCs take only few sessions.
type Fencer struct {
	path []string
	log  *slog.Logger
}

// New returns a Fencer.
func New(c Config) *Fencer {
	if c.Path == nil {
		c.Path = append(filepath.SplitList(os.Getenv("PATH")), "/usr/sbin")
	}
	return &Fencer{path: c.Path, log: c.Logger}
}

// Off switches a node off and returns nil only if every device of one level said afterwards that it is.
// Every error wraps ErrNotOff and says for each level what went wrong; the node may be off all the
// same. Off ends at most two seconds later than ctx, and no process that it started is left then.
func (f *Fencer) Off(ctx context.Context, l Levels) error {
	if err := l.Validate(); err != nil {
		return fmt.Errorf("%w: %w", ErrNotOff, err)
	}
	failed := ErrNotOff
	for i, level := range l {
		err := f.level(ctx, level)
		if err == nil {
			if i > 0 {
				f.log.Warn("fencing confirmed, but not at the first level", "level", i+1, "err", failed)
			}
			return nil
		}
		failed = fmt.Errorf("%w; level %d: %w", failed, i+1, err)
		if ctx.Err() != nil {
			break
		}
	}
	return failed
}

// level switches all devices off and only then asks them, so that there is an instant at which all were off.
func (f *Fencer) level(ctx context.Context, devices []Device) error {
	for _, d := range devices {
		code, why, err := f.command(ctx, d, "off")
		if err != nil {
			return err
		}
		if code != exitDone {
			return fmt.Errorf("%s: off: %s", d, why)
		}
	}
	for _, d := range devices {
		on, err := f.status(ctx, d)
		if err != nil {
			return err
		}
		if on {
			return fmt.Errorf("%s: status: still on although the command off succeeded", d)
		}
	}
	return nil
}

// Check asks a device whether its node is on; it changes nothing. It proves that the device is reached,
// not that off would work.
func (f *Fencer) Check(ctx context.Context, d Device) (on bool, err error) {
	if err := d.Validate(); err != nil {
		return false, err
	}
	return f.status(ctx, d)
}

func (f *Fencer) status(ctx context.Context, d Device) (on bool, err error) {
	code, why, err := f.command(ctx, d, "status")
	switch {
	case err != nil:
		return false, err
	case code == exitDone:
		return true, nil
	case code == exitOff:
		return false, nil
	}
	return false, fmt.Errorf("%s: status: %s", d, why)
}

// command runs one action. why is the exit code and the agent's last line.
func (f *Fencer) command(ctx context.Context, d Device, action string) (code int, why string, err error) {
	out, diag := &tail{max: maxOutput}, &tail{max: maxOutput}
	code, err = f.run(ctx, d, action, out, diag)
	why = fmt.Sprintf("exit code %d", code)
	if code < 0 {
		why = "ended by a signal"
	}
	line := lastLine(diag.text(), d.Options)
	if line == "" && code != exitDone {
		line = lastLine(out.text(), d.Options)
	}
	if line != "" {
		why += ": " + line
	}
	if err != nil {
		if line != "" {
			err = fmt.Errorf("%w (%s)", err, line)
		}
		return code, why, fmt.Errorf("%s: %s: %w", d, action, err)
	}
	return code, why, nil
}

// run runs the agent of d in its time and logs that it did.
func (f *Fencer) run(ctx context.Context, d Device, action string, out, diag *tail) (code int, err error) {
	program, err := f.find(d.Agent)
	if err != nil {
		return -1, err
	}
	bounded, cancel := context.WithTimeoutCause(ctx, d.Bound(), fmt.Errorf("no answer in %s", d.Bound()))
	defer cancel()
	begin, level := time.Now(), slog.LevelInfo
	if action != "off" {
		level = slog.LevelDebug // it is asked every few minutes
	}
	f.log.Log(ctx, level, "fence command", "device", d.Name, "agent", d.Agent, "action", action)
	code, err = execute(bounded, job{program: program, input: input(d.Options, action), path: f.path}, out, diag)
	f.log.Log(ctx, level, "fence command ended", "device", d.Name, "action", action, "code", code,
		"took", time.Since(begin))
	return code, err
}

// find returns the program of an agent. Only absolute folders count: what the daemon runs as root does not depend on
// where it was started.
func (f *Fencer) find(agent string) (string, error) {
	for _, dir := range f.path {
		file := filepath.Join(dir, agent)
		if fi, err := os.Stat(file); err == nil && filepath.IsAbs(file) && fi.Mode().IsRegular() &&
			fi.Mode().Perm()&0o111 != 0 {
			return file, nil
		}
	}
	return "", fmt.Errorf("%w: %s: apt-get install --no-install-recommends fence-agents, and look at /usr/sbin/fence_* "+
		"for its name", ErrNoAgent, agent)
}

// input is what the agent reads.
func input(o Options, action string) string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(o)) {
		fmt.Fprintf(&b, "%s=%s\n", name, quote(o[name]))
	}
	fmt.Fprintf(&b, "action=%s\n", action)
	return b.String()
}

// quote protects what the agents would take away: spaces at the ends and a pair of quotes around the value.
func quote(value string) string {
	if value != strings.TrimSpace(value) || strings.HasPrefix(value, `"`) && strings.HasSuffix(value, `"`) &&
		len(value) > 1 {
		return `"` + value + `"`
	}
	return value
}
