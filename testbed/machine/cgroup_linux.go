package machine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// group is the control group of a container, in each hierarchy that systemd uses here: its folders, that of
// version 2 first. Without one of its own, two containers would take each other's services for theirs. It
// outlives this process if that dies; newContainer of the same names removes it then.
type group []string

// newGroup returns the group of a machine below the roots of the hierarchies. It makes nothing. The error says
// that this computer has no unified hierarchy.
func newGroup(prefix, machine string) (group, error) {
	name := "duet-" + prefix + "-" + machine
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	var g group
	unified := false
	for _, line := range strings.Split(string(mounts), "\n") {
		head, tail, ok := strings.Cut(line, " - ")
		f := strings.Fields(head)
		if !ok || len(f) < 5 {
			continue
		}
		if strings.HasPrefix(tail, "cgroup2 ") {
			g, unified = slices.Insert(g, 0, filepath.Join(f[4], name)), true
		} else if strings.HasPrefix(tail, "cgroup ") && strings.HasSuffix(tail, "name=systemd") {
			g = append(g, filepath.Join(f[4], name))
		}
	}
	if !unified {
		return nil, errors.New("control groups of version 2 are not mounted here")
	}
	return g, nil
}

// leader returns the process id, seen from here, of the systemd that nspawn has started in the group.
func (g group) leader() (int, error) {
	procs, err := os.ReadFile(filepath.Join(g[0], "payload", "init.scope", "cgroup.procs"))
	if err != nil {
		return 0, fmt.Errorf("find the first process: %w", err)
	}
	first, _, _ := strings.Cut(string(procs), "\n")
	return strconv.Atoi(first)
}

// kill kills every process of the group at once and returns when none is left. A group that is not there has
// none. A process that no signal ends lets it wait for ever.
func (g group) kill() error {
	if err := os.WriteFile(filepath.Join(g[0], "cgroup.kill"), []byte("1"), 0); errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return fmt.Errorf("kill control group: %w", err)
	}
	for {
		if alive, err := g.populated(); err != nil || !alive {
			return err
		}
		time.Sleep(time.Millisecond) // the kernel ends them: there is nothing else to wait on
	}
}

// populated tells whether a process is in the group or below it.
func (g group) populated() (bool, error) {
	events, err := os.ReadFile(filepath.Join(g[0], "cgroup.events"))
	if err != nil {
		return false, fmt.Errorf("look at control group: %w", err)
	}
	return !strings.Contains(string(events), "populated 0"), nil
}

func (g group) make() error {
	for _, dir := range g {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("make control group: %w", err)
		}
	}
	return nil
}

// remove removes the group and those that systemd has made below it. No process is left in them. The innermost
// go first. One that is gone already is no error.
func (g group) remove() error {
	for _, top := range g {
		var dirs []string
		err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				dirs = append(dirs, path)
			}
			return err
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove control group: %w", err)
		}
		for _, dir := range slices.Backward(dirs) {
			if err := unix.Rmdir(dir); err != nil && !errors.Is(err, unix.ENOENT) {
				return fmt.Errorf("remove control group %s: %w", dir, err)
			}
		}
	}
	return nil
}
