package membership

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"

	"duet/cluster"
)

func conf() cluster.Config {
	return cluster.Config{Name: "office", Self: "alpha", Port: 7420, GossipKeys: [][]byte{make([]byte, 32)},
		Members: []cluster.Member{{Node: "alpha"}, {Node: "beta"}}}
}

func open(t *testing.T) *Book {
	t.Helper()
	dir := t.TempDir()
	if err := Save(dir, conf()); err != nil {
		t.Fatal(err)
	}
	b, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestNobodyWaitsForTheDisk: while a change is being saved on a disk that hangs, everybody
// else has the configuration as it was before.
func TestNobodyWaitsForTheDisk(t *testing.T) {
	b := open(t)
	synctest.Test(t, func(t *testing.T) {
		hang := make(chan struct{})
		b.save = func(string, cluster.Config) error { <-hang; return nil }
		done := make(chan error)
		go func() {
			_, err := b.Change(func(c *cluster.Config) bool { c.Port = 1; return true })
			done <- err
		}()
		synctest.Wait() // the change waits for the disk
		if got := b.Config().Port; got != 7420 {
			t.Errorf("port %d is used before it is durable", got)
		}
		close(hang)
		if err := <-done; err != nil || b.Config().Port != 1 {
			t.Errorf("after the change: %d, %v", b.Config().Port, err)
		}
	})
}

func TestChange(t *testing.T) {
	b := open(t)
	if c, err := b.Change(func(*cluster.Config) bool { return false }); err != nil || c.Name != "office" {
		t.Errorf("no change: %+v, %v", c, err)
	}
	if _, err := b.Change(func(c *cluster.Config) bool { c.Ping = []string{"10.0.0.1"}; return true }); err != nil {
		t.Fatal(err)
	}
	again, err := Open(b.dir)
	if err != nil || len(again.Config().Ping) != 1 {
		t.Errorf("read again: %+v, %v", again, err)
	}
	sick := errors.New("disk is sick")
	b.save = func(string, cluster.Config) error { return sick }
	if _, err := b.Change(func(c *cluster.Config) bool { c.Ping = nil; return true }); !errors.Is(err, sick) ||
		len(b.Config().Ping) != 1 {
		t.Errorf("a change that is not durable counts: %v", err)
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	if _, err := Load(dir); !errors.Is(err, ErrNoMember) {
		t.Errorf("no configuration: %v", err)
	}
	for text, want := range map[string]string{"{": "unexpected end", `{"self":"gamma"}`: `"gamma"`} {
		if err := os.WriteFile(filepath.Join(dir, File), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(dir); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
	if err := Save(filepath.Join(dir, "new"), conf()); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(filepath.Join(dir, "new", File)); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st, err)
	}
}
