// Package previous builds the programs of the release before this tree, out of the repository's own history. Tests run
// them beside today's, because the two nodes of a cluster are upgraded one after the other.
package previous

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// commit is that release. A release's own commit goes in here with the first change after it: nodes of the version
// before the last one need not work with this one (docs/upgrade.md).
//
//go:embed commit.txt
var commit string

// ErrNoHistory is returned where the repository does not have the release: a shallow clone, or an archive.
var ErrNoHistory = errors.New("the history of the previous release is not in this repository")

// Commit names the release.
func Commit() string { return strings.TrimSpace(commit) }

// Build puts duet and duetd of the release below dir and returns the folder of the two. What a call before it
// has built is taken again. root is any folder inside the repository. Not for several goroutines or processes at
// once. ErrNoHistory is in the error where there is nothing to build from. It needs git, tar and the go command;
// a folder NAME.half may stay if it is killed, and is built over.
func Build(ctx context.Context, root, dir string) (string, error) {
	if err := git(ctx, root, "cat-file", "-e", Commit()+"^{commit}").Run(); err != nil {
		return "", fmt.Errorf("%w: %s", ErrNoHistory, Commit())
	}
	bin := filepath.Join(dir, Commit())
	if _, err := os.Stat(bin); err == nil {
		return bin, nil
	}
	tree, err := os.MkdirTemp("", "previous")
	if err != nil {
		return "", fmt.Errorf("make a folder for the previous release: %w", err)
	}
	defer os.RemoveAll(tree)
	if err := unpack(ctx, root, tree); err != nil {
		return "", err
	}
	// Under another name first: a folder of the right name is complete.
	half := bin + ".half"
	build := exec.CommandContext(ctx, "go", "build", "-tags", "libvirt_dlopen", "-o", half+"/",
		"-ldflags", "-X duet/cmd/version.stamp=0.0.0~previous", "./cmd/duet", "./cmd/duetd")
	build.Dir = tree
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the previous release: %w: %s", err, out)
	}
	if err := os.Rename(half, bin); err != nil {
		return "", fmt.Errorf("keep the previous release: %w", err)
	}
	return bin, nil
}

// unpack writes the files of the release into tree.
func unpack(ctx context.Context, root, tree string) error {
	var said bytes.Buffer
	archive := git(ctx, root, "archive", Commit())
	archive.Stderr = &said
	files, err := archive.StdoutPipe()
	if err != nil {
		return fmt.Errorf("read the previous release: %w", err)
	}
	if err := archive.Start(); err != nil {
		return fmt.Errorf("read the previous release: %w", err)
	}
	untar := exec.CommandContext(ctx, "tar", "-x", "-C", tree)
	untar.Stdin, untar.Stderr = files, &said
	if err := errors.Join(untar.Run(), archive.Wait()); err != nil {
		return fmt.Errorf("unpack the previous release: %w: %s", err, said.String())
	}
	return nil
}

// git reads the repository around root. Its own top is asked for first, because an archive made in a folder has only
// that.
func git(ctx context.Context, root string, args ...string) *exec.Cmd {
	top, err := exec.CommandContext(ctx, "git", "-C", root, "rev-parse", "--show-toplevel").Output()
	if err != nil {
		top = []byte(root)
	}
	return exec.CommandContext(ctx, "git", append([]string{"-C", strings.TrimSpace(string(top))}, args...)...)
}
