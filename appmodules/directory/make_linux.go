package directory

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// makers are the programs that make a file system of an image without asking. Sectors are those of every block device
// of a volume, see package blockrepl/host.
var makers = map[string][]string{
	"ext4": {"mkfs.ext4", "-q", "-F", "-b", "4096", "-m", "1", "-E", "lazy_itable_init=0,lazy_journal_init=0"},
	"xfs":  {"mkfs.xfs", "-q", "-s", "size=4096"},
}

// ErrNotEmpty is returned for an image that holds something already.
var ErrNotEmpty = errors.New("it is not empty")

// Make makes a file system on an image or block device that holds nothing: what is there is never overwritten.
func Make(ctx context.Context, path, fileSystem string) error {
	maker, ok := makers[fileSystem]
	if !ok {
		return fmt.Errorf("no file system is called %q", fileSystem)
	}
	switch held, err := Held(ctx, path); {
	case err != nil:
		return err
	case held != "":
		return fmt.Errorf("%s: %w: it has %s", path, ErrNotEmpty, held)
	}
	_, err := command(ctx, maker[0], append(maker[1:], path)...)
	return err
}

// Held is what kind of data an image or block device begins with, as blkid calls it; empty: none that it knows.
func Held(ctx context.Context, path string) (string, error) {
	out, err := command(ctx, "blkid", "-p", "-o", "value", "-s", "TYPE", "-s", "PTTYPE", path)
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 2 { // nothing was found
		return "", nil
	}
	return strings.Join(strings.Fields(out), " "), err
}

// command runs a program to its end. Its error has what it said.
func command(ctx context.Context, name string, args ...string) (string, error) {
	var out, fault bytes.Buffer
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdout, cmd.Stderr = &out, &fault
	if err := cmd.Run(); err != nil {
		said := strings.TrimSpace(fault.String() + out.String()) // e2fsck complains where others answer
		if said == "" {
			return "", fmt.Errorf("%s: %w", name, err)
		}
		return "", fmt.Errorf("%s: %w: %s", name, err, said)
	}
	return out.String(), nil
}

// Fill mounts an image by itself for a moment and gives it the content of directories, each under its path; one that
// does not exist is made, empty, with the mode of a new directory. The image belongs to nobody else meanwhile. What it
// has is durable when it returns nil. What a Fill that was killed has left mounted is unmounted first.
func Fill(ctx context.Context, image, at string, directories []string) error {
	if err := os.MkdirAll(at, 0o700); err != nil {
		return err
	}
	if err := nothingOn(at); err != nil {
		return err
	}
	_, err := command(ctx, "mount", "-o", "loop", image, at)
	if err == nil {
		err = fill(ctx, at, directories)
	}
	// Also of a mount that was cut off.
	if err := errors.Join(err, nothingOn(at), os.Remove(at)); err != nil {
		return err
	}
	return flush(image)
}

// flush makes durable what a file has.
func flush(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// fill copies the directories to where the image is mounted.
func fill(ctx context.Context, at string, directories []string) error {
	for _, dir := range directories {
		to := filepath.Join(at, dir)
		if err := os.MkdirAll(to, 0o755); err != nil {
			return err
		}
		if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
			continue
		} else if err != nil {
			return err
		}
		// All that cp keeps: owners by number, times, hard links, holes, extended attributes and access lists.
		if _, err := command(ctx, "cp", "-a", "--sparse=always", "-T", dir, to); err != nil {
			return fmt.Errorf("copy %s: %w", dir, err)
		}
	}
	return nil
}

// nothingOn unmounts all that is mounted on a directory and not in use.
func nothingOn(at string) error {
	for {
		err := unix.Unmount(at, unix.UMOUNT_NOFOLLOW)
		if errors.Is(err, unix.EINVAL) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("unmount %s: %w", at, err)
		}
	}
}
