package setup_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"duet/cmd/duet/setup"
)

// TestLeaveWithMount: a disk that is mounted for the images stays where it is when a node leaves.
func TestLeaveWithMount(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root may mount")
	}
	dir := t.TempDir()
	if _, err := (setup.OnDisk{}).Init(t.Context(), founding(t, dir)); err != nil {
		t.Fatal(err)
	}
	volumes := filepath.Join(dir, "volumes")
	if err := os.Mkdir(volumes, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("none", volumes, "tmpfs", 0, "size=1m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(volumes, 0); err != nil {
			t.Error(err)
		}
	})
	image := filepath.Join(volumes, "web01.raw")
	if err := os.WriteFile(image, []byte("data"), 0o600); err != nil {
		t.Fatal(err)
	}
	aside, err := (setup.OnDisk{}).Leave(dir, time.Unix(0, 0))
	if err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(image); err != nil || string(b) != "data" {
		t.Errorf("the image on the mounted disk: %q, %v", b, err)
	}
	if _, err := os.Stat(filepath.Join(aside, setup.PKIFolder)); err != nil {
		t.Error(err)
	}
	if _, err := (setup.OnDisk{}).Init(t.Context(), founding(t, dir)); err != nil {
		t.Errorf("it cannot be part of a cluster again: %v", err)
	}
}
