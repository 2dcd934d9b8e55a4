package testcluster

import (
	"context"
	"path/filepath"
	"testing"

	"duet/testbed/netns"
)

// TestReplugThatFails: the disk stays what it is, and can be replugged again.
func TestReplugThatFails(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	d := &disk{dir: filepath.Join(t.TempDir(), "disk")}
	was := d.image()
	if err := d.replug(ctx); err == nil || d.image() != was {
		t.Errorf("the image is %s and was %s (%v)", d.image(), was, err)
	}
}

// TestWitnessThatDoesNotBoot: it is booted again by the next start.
func TestWitnessThatDoesNotBoot(t *testing.T) {
	l := &Cluster{cfg: Config{Dir: t.TempDir()}, LAN: &netns.LAN{}} // a network that is not there
	first := l.StartWitness(t.Context())
	if again := l.StartWitness(t.Context()); first == nil || again == nil || again.Error() != first.Error() {
		t.Errorf("first %v, then %v", first, again)
	}
}
