package directory

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
)

// TestUsersOfNothing: where nothing is mounted nobody is to be ended, although every process of this host uses the file
// system on which the directory lies; nor where somebody has bound a directory of the host itself.
func TestUsersOfNothing(t *testing.T) {
	dir := t.TempDir()
	tree := Tree{At: dir, Directories: []string{filepath.Join(dir, "apps")}}
	nobody := func() {
		t.Helper()
		now, err := tree.stands()
		if who := usersOf(now.dev); len(who) > 0 || err != nil {
			t.Fatalf("%s would be ended (%v)", who, err)
		}
	}
	nobody()
	if os.Getuid() != 0 {
		t.Skip("only root mounts")
	}
	run := func(args ...string) {
		t.Helper()
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%q: %v\n%s", args, err, out)
		}
	}
	run("mount", "--bind", "/usr", dir)
	t.Cleanup(func() { run("umount", dir) })
	nobody()
}

// TestUsers: who has a file open, or works in the directory, is found; nobody else is.
func TestUsers(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root mounts")
	}
	dir := t.TempDir()
	if out, err := exec.Command("mount", "-t", "tmpfs", "tmpfs", dir).CombinedOutput(); err != nil {
		t.Fatalf("mount: %v\n%s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			t.Errorf("umount: %v\n%s", err, out)
		}
	})
	var want []int
	for _, text := range []string{`exec 3>"$0/file"; echo; read x`, `cd "$0"; echo; read x`} {
		cmd := exec.Command("/bin/sh", "-c", text, dir)
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { in.Close(); cmd.Wait() })
		if _, err := out.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		want = append(want, cmd.Process.Pid)
	}
	var found []int
	now, err := Tree{At: dir}.stands()
	if err != nil {
		t.Fatal(err)
	}
	for pid := range usersOf(now.dev) {
		found = append(found, pid)
	}
	slices.Sort(found)
	slices.Sort(want)
	if !slices.Equal(found, want) {
		t.Errorf("found %v, want %v", found, want)
	}
}
