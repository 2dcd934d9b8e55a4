package directory

import (
	"context"
	"errors"
	"fmt"
	"os"
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
	at, err := mounts()
	if err != nil {
		return err
	}
	if !slices.Contains(at, t.At) {
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
		if slices.Contains(at, dir) {
			continue
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
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
	out, err := command(ctx, "e2fsck", "-p", device)
	var exit interface{ ExitCode() int }
	if errors.As(err, &exit) && exit.ExitCode() == 1 { // it has mended something
		return nil
	}
	if err != nil {
		return fmt.Errorf("the file system needs a human: `e2fsck %s`: %w %s", device, err, out)
	}
	return nil
}

// Mounted: the file system is mounted; whole: and every directory is in its place.
func (t Tree) Mounted() (is, whole bool, err error) {
	at, err := mounts()
	if err != nil {
		return false, false, err
	}
	is = slices.Contains(at, t.At)
	whole = is
	for _, dir := range t.Directories {
		there := slices.Contains(at, dir)
		is, whole = is || there, whole && there
	}
	return is, whole, nil
}

// patience is how long processes that use a directory are given to end when they are asked to.
const patience = 5 * time.Second

// Unmount takes the directories away and unmounts the file system, all of which is on the device then. Who still uses
// it is asked to end, and then ended; users are told to tell.
func (t Tree) Unmount(ctx context.Context, tell func(users string)) error {
	for _, signal := range []unix.Signal{0, unix.SIGTERM, unix.SIGKILL} {
		if signal != 0 {
			users := t.users()
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
	return fmt.Errorf("%s is in use: %s", t.At, t.users())
}

// unmount does what can be done without force.
func (t Tree) unmount() error {
	for _, dir := range slices.Backward(t.Directories) {
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
	is, _, err := t.Mounted()
	if err != nil || !is {
		return err
	}
	dir, err := os.Open(t.At)
	if err != nil {
		return err
	}
	err = unix.IoctlSetPointerInt(int(dir.Fd()), shutdownIoctl, shutNow)
	dir.Close()
	if err != nil && !errors.Is(err, unix.EIO) { // it is shut already
		return fmt.Errorf("shut %s: %w", t.At, err)
	}
	for _, at := range append(slices.Clone(t.Directories), t.At) {
		if err := gone(unix.Unmount(at, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)); err != nil {
			return fmt.Errorf("detach %s: %w", at, err)
		}
	}
	return nil
}

// device is the number of the file system that is mounted for the tree; 0: none is. It is never that of this host's
// root, whatever is said to be mounted.
func (t Tree) device() (uint64, error) {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return 0, err
	}
	var root unix.Stat_t
	if err := unix.Stat("/", &root); err != nil {
		return 0, err
	}
	var device uint64
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) < 5 || unescape(fields[4]) != t.At {
			continue
		}
		var major, minor uint32
		if _, err := fmt.Sscanf(fields[2], "%d:%d", &major, &minor); err != nil {
			return 0, err
		}
		device = unix.Mkdev(major, minor) // the last one lies on top
	}
	if device == root.Dev {
		return 0, nil
	}
	return device, nil
}

// mounts are the places of this mount namespace on which something is mounted.
func mounts() (all []string, err error) {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); len(fields) > 4 {
			all = append(all, unescape(fields[4]))
		}
	}
	return all, nil
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
