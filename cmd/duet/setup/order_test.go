package setup

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// TestInOrder: the identity goes first, and what says that there is something to leave goes last.
func TestInOrder(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{ConfigFile, storeFile, PKIFolder, "volumes"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	inOrder(entries)
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if want := []string{PKIFolder, storeFile, "volumes", ConfigFile}; !slices.Equal(got, want) {
		t.Errorf("they go as %v, want %v", got, want)
	}
}
