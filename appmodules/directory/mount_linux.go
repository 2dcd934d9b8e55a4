package directory

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Tree is a volume's file system and the directories that lie on it.
type Tree struct {
	FileSystem  string
	At          string   // where it is mounted: a directory of Duet's own
	Directories []string // where applications find theirs, by whole paths
}

// Mount mounts the file system of a device and puts each directory in its place. What is done already stays. A file
// system that was not unmounted is repaired by its journal.
func (t Tree) Mount(ctx context.Context, device string) error {
	now, err := t.stands()
	if err = errors.Join(err, now.other); err != nil {
		return err
	}
	if !now.at {
		if err := t.check(ctx, device); err != nil {
			return err
		}
		if err := os.MkdirAll(t.At, 0o700); err != nil {
			return err
		}
		if err := unix.Mount(device, t.At, t.FileSystem, unix.MS_NOATIME, ""); err != nil {
			return fmt.Errorf("mount %s on %s: %w", device, t.At, err)
		}
	}
	for _, dir := range t.Directories {
		if now.dirs[dir] {
			continue
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if real, err := filepath.EvalSymlinks(dir); err != nil || real != dir {
			return errors.Join(fmt.Errorf("%s leads to %q: on both nodes it has to be a directory", dir, real), err)
		}
		if err := unix.Mount(filepath.Join(t.At, dir), dir, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("put %s in its place: %w", dir, err)
		}
	}
	return nil
}

// check has ext4 replay its journal and mend what it may mend by itself; xfs does so when it is mounted.
func (t Tree) check(ctx context.Context, device string) error {
	if t.FileSystem != "ext4" {
		return nil
	}
	_, err := command(ctx, "e2fsck", "-p", device)
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() > 0 && exit.ExitCode()&^3 == 0 { // it has mended something
		return nil
	}
	if ctx.Err() != nil {
		return fmt.Errorf("e2fsck %s: %w", device, ctx.Err())
	}
	if err != nil {
		return fmt.Errorf("the file system needs a human: `e2fsck %s`: %w", device, err)
	}
	return nil
}

// Mounted: the file system is mounted; whole: and every directory is in its place.
func (t Tree) Mounted() (is, whole bool, err error) {
	now, err := t.stands()
	if err != nil {
		return false, false, err
	}
	return now.at || len(now.dirs) > 0, now.at && len(now.dirs) == len(t.Directories), nil
}

// patience is how long processes that use a directory are given to end when they are asked to.
const patience = 5 * time.Second

// Unmount takes the directories away and unmounts the file system, all of which is on the device then. Who still uses
// it is asked to end, and then ended; users are told to tell.
func (t Tree) Unmount(ctx context.Context, tell func(users string)) error {
	now, err := t.stands()
	if err != nil {
		return err
	}
	for _, signal := range []unix.Signal{0, unix.SIGTERM, unix.SIGKILL} {
		if signal != 0 {
			users := usersOf(now.dev)
			tell(users.String())
			users.signal(signal)
		}
		until := time.Now().Add(patience)
		for {
			err := t.unmount()
			if err == nil || !errors.Is(err, unix.EBUSY) {
				return err
			}
			if signal == 0 || time.Now().After(until) {
				break
			}
			select {
			case <-ctx.Done():
				return errors.Join(err, ctx.Err())
			case <-time.After(10 * time.Millisecond):
			}
		}
	}
	return fmt.Errorf("%s is in use: %s", t.At, usersOf(now.dev))
}

// unmount does what can be done without force.
func (t Tree) unmount() error {
	now, err := t.stands()
	if err != nil {
		return err
	}
	for _, dir := range slices.Backward(t.Directories) {
		if !now.dirs[dir] {
			continue
		}
		if err := gone(unix.Unmount(dir, unix.UMOUNT_NOFOLLOW)); err != nil {
			return fmt.Errorf("unmount %s: %w", dir, err)
		}
	}
	if err := gone(unix.Unmount(t.At, unix.UMOUNT_NOFOLLOW)); err != nil {
		return fmt.Errorf("unmount %s: %w", t.At, err)
	}
	return nil
}

// gone takes it for done that nothing was mounted.
func gone(err error) error {
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}

// shutdownIoctl is EXT4_IOC_SHUTDOWN and XFS_IOC_GOINGDOWN, which are one number (_IOR('X', 125, __u32)).
const shutdownIoctl = 0x8004587d

// shutNow is the flag by which not even the log is written any more.
const shutNow = 2

// Shut has the file system refuse everything from its return on: nothing of what is in memory reaches the device any
// more, and who uses it gets errors. Then it is detached, to go when its last user goes. It is for a node that has lost
// the right to write the device.
func (t Tree) Shut() error {
	now, err := t.stands()
	if err != nil || now.dev == 0 {
		return err
	}
	at := t.At
	for dir := range now.dirs {
		if !now.at { // what lies below is another file system, and not to be shut
			at = dir
		}
	}
	if err := shut(at, now.dev); err != nil {
		return fmt.Errorf("shut %s: %w", at, err)
	}
	for _, at := range append(slices.Sorted(maps.Keys(now.dirs)), t.At) {
		if err := gone(unix.Unmount(at, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)); err != nil {
			return fmt.Errorf("detach %s: %w", at, err)
		}
	}
	return nil
}

// shut shuts the file system of a directory, which has to be that one. One that has shut itself, as after an error of
// its device, answers EIO to everything.
func shut(at string, dev uint64) error {
	dir, err := os.Open(at)
	if errors.Is(err, unix.EIO) {
		return nil
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(dir.Fd()), &st); err == nil && st.Dev != dev {
		return errors.New("another file system is there by now")
	}
	if err := unix.IoctlSetPointerInt(int(dir.Fd()), shutdownIoctl, shutNow); err != nil && !errors.Is(err, unix.EIO) {
		return err
	}
	return nil
}

// place is something that is mounted in this mount namespace.
type place struct {
	at, root string // where, and which directory of its file system
	dev      uint64
}

// mounts are all of them. Of two at one place the later one is seen.
func mounts() (all []place, err error) {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) < 5 {
			continue
		}
		var major, minor uint32
		if _, err := fmt.Sscanf(fields[2], "%d:%d", &major, &minor); err != nil {
			return nil, fmt.Errorf("/proc/self/mountinfo: %q: %w", line, err)
		}
		all = append(all, place{at: unescape(fields[4]), root: unescape(fields[3]), dev: unix.Mkdev(major, minor)})
	}
	return all, nil
}

// standing is what of a tree is in its place.
type standing struct {
	at   bool            // its file system
	dirs map[string]bool // and these directories
	dev  uint64          // their file system; 0: none of it is there
	// other is the error that something else is mounted on a directory. To take that for the tree's would have an
	// application write where nothing is replicated, and an end of the tree would hit others.
	other error
}

// stands looks for the tree.
func (t Tree) stands() (standing, error) {
	s := standing{dirs: map[string]bool{}}
	all, err := mounts()
	if err != nil {
		return s, err
	}
	seen := map[string]place{}
	for _, p := range all {
		seen[p.at] = p
	}
	if p, is := seen[t.At]; is {
		s.at, s.dev = true, p.dev
	}
	for _, dir := range t.Directories {
		p, is := seen[dir]
		if !is {
			continue
		}
		if s.dev == 0 && p.root == dir { // the file system was unmounted by hand, and this is left of it
			s.dev = p.dev
		}
		if p.root != dir || p.dev != s.dev {
			s.other = fmt.Errorf("something else is mounted on %s: `umount %s`", dir, dir)
			continue
		}
		s.dirs[dir] = true
	}
	return s, nil
}

// unescape undoes how proc(5) writes blanks and backslashes: as \ooo.
func unescape(text string) string {
	var out strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] == '\\' && i+3 < len(text) {
			if n, err := strconv.ParseUint(text[i+1:i+4], 8, 8); err == nil {
				out.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		out.WriteByte(text[i])
	}
	return out.String()
}
