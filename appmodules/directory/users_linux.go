package directory

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// users are processes that use a file system, by their numbers.
type users map[int]string

// String names them.
func (u users) String() string {
	var all []string
	for pid, name := range u {
		all = append(all, fmt.Sprintf("%s (%d)", name, pid))
	}
	if all == nil {
		return "no process that this one can see"
	}
	return strings.Join(all, ", ")
}

// signal sends them a signal.
func (u users) signal(s unix.Signal) {
	for pid := range u {
		_ = unix.Kill(pid, s) // one that has ended is gone
	}
}

// EndUsers ends at once who has a file of the tree open, mapped, or as its working directory.
func (t Tree) EndUsers() error {
	now, err := t.stands()
	if err == nil {
		usersOf(now.dev).signal(unix.SIGKILL)
	}
	return err
}

// usersOf looks for processes that have a file of a file system open, mapped, or as their working directory. Of this
// host's root, which everybody uses, there are none, whatever is said to be mounted.
func usersOf(dev uint64) users {
	out := users{}
	var root unix.Stat_t
	if err := unix.Stat("/", &root); err != nil || dev == 0 || dev == root.Dev {
		return out
	}
	processes, _ := filepath.Glob("/proc/[0-9]*")
	for _, p := range processes {
		pid, err := strconv.Atoi(filepath.Base(p))
		if err != nil || pid == 1 || pid == os.Getpid() || !uses(p, dev) {
			continue
		}
		name, _ := os.ReadFile(p + "/comm")
		out[pid] = strings.TrimSpace(string(name))
	}
	return out
}

// uses: a process has something of a file system.
func uses(process string, dev uint64) bool {
	links := []string{process + "/cwd", process + "/root", process + "/exe"}
	for _, folder := range []string{"/fd", "/map_files"} {
		entries, _ := os.ReadDir(process + folder) // it may end meanwhile
		for _, e := range entries {
			links = append(links, process+folder+"/"+e.Name())
		}
	}
	var st unix.Stat_t
	for _, l := range links {
		if unix.Stat(l, &st) == nil && st.Dev == dev {
			return true
		}
	}
	return false
}
