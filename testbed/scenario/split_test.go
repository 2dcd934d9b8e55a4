package scenario

import (
	"crypto/sha256"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"duet/console/api"
	"duet/testbed/netns"
	"duet/testbed/testcluster"
)

// TestSplitBrain: with arbitration `available` and a gateway that both hosts reach, a cut
// between them makes two writers. When it ends alpha, which had the right before, goes on
// without a pause of its VM, and what beta wrote is kept, whole, and can be had as a file.
func TestSplitBrain(t *testing.T) {
	l := start(t, 38)
	ctx := bounded(t, 3*time.Minute)
	a, b := l.Hosts[testcluster.Alpha], l.Hosts[testcluster.Beta]
	must(t, a.Protect(ctx, testcluster.VM{Name: "web01", Size: 32 << 20, Rate: 100}))
	waitAcks(ctx, t, l, "web01", 50)
	began := time.Now()
	must(t, l.LAN.Cut(netns.Between(testcluster.Alpha, testcluster.Beta, "")...))
	must(t, a.Is(ctx, "web01", "ALONE"))
	must(t, b.Is(ctx, "web01", "ALONE"))
	must(t, testcluster.Until(ctx, "beta's guest writes", func() error {
		st, err := b.On(ctx, "web01")
		if err == nil && (len(st.Volumes) == 0 || st.Volumes[0].WriteOps < 100) {
			return errorf("%+v", st.Volumes)
		}
		return err
	}))
	// With beta's guest stopped its image is what must be kept.
	duet(ctx, t, b, "stop", "web01", "--node", testcluster.Beta)
	must(t, testcluster.Until(ctx, "the module is stopped on beta", func() error {
		st, err := b.On(ctx, "web01")
		if err == nil && st.Role != "STOP" {
			return errorf("%s", st.Role)
		}
		return err
	}))
	st, err := b.On(ctx, "web01")
	must(t, err)
	lost := sum(t, b, st.Volumes[0].Path)

	must(t, l.LAN.RestoreAll())
	duet(ctx, t, b, "start", "web01", "--node", testcluster.Beta)
	must(t, a.Whole(ctx, "web01"))
	must(t, b.Is(ctx, "web01", "SECOND"))
	waitAcks(ctx, t, l, "web01", 20)
	identical(ctx, t, a, "web01")

	var kept []api.Version
	must(t, json.Unmarshal([]byte(duet(ctx, t, a, "volume", "diverged", "--json")), &kept))
	if len(kept) != 1 || kept[0].Node != testcluster.Beta || kept[0].Winner.Node != testcluster.Alpha {
		t.Fatalf("kept versions: %+v", kept)
	}
	var differ []api.Difference
	must(t, json.Unmarshal([]byte(duet(ctx, t, a, "volume", "diverged", "web01", "--json")), &differ))
	if len(differ) != 1 || differ[0].Bytes == 0 || len(differ[0].Ranges) == 0 || differ[0].Partly {
		t.Fatalf("what differs: %+v", differ)
	}
	for _, s := range []api.Side{kept[0].Loser, kept[0].Winner} {
		if s.FirstWrite == nil || s.LastWrite == nil || s.FirstWrite.Before(began) || s.LastWrite.Before(*s.FirstWrite) ||
			s.LastWrite.After(kept[0].Begun) {
			t.Errorf("parted after %v, met at %v: %+v", began, kept[0].Begun, s)
		}
	}
	file := "/var/lib/duet/kept.raw"
	duet(ctx, t, b, "volume", "export", kept[0].ID, file)
	if got := sum(t, b, file); got != lost {
		t.Error("the exported version is not what beta's image was")
	}
	if now := sum(t, b, st.Volumes[0].Path); now == lost {
		t.Error("beta's image was not brought in step")
	}
	log, err := l.Hosts[testcluster.Alpha].Duet(ctx, "log", "web01", "-n", "200")
	must(t, err)
	for _, want := range []string{"SPLIT BRAIN: both nodes went on in one epoch",
		"SPLIT BRAIN: this node wrote without its peer"} {
		if !strings.Contains(log, want) {
			t.Errorf("the log does not say %q", want)
		}
	}
	duet(ctx, t, a, "volume", "drop", kept[0].ID)
	if out := duet(ctx, t, b, "volume", "diverged"); !strings.Contains(out, "No version is kept") {
		t.Errorf("after the drop: %s", out)
	}
}

// sum is the checksum of a file of a host.
func sum(t *testing.T, h *testcluster.Host, path string) (out [sha256.Size]byte) {
	t.Helper()
	outside, err := h.Node.Outside(path)
	must(t, err)
	f, err := os.Open(filepath.Clean(outside))
	must(t, err)
	defer f.Close()
	hash := sha256.New()
	_, err = io.Copy(hash, f)
	must(t, err)
	return [sha256.Size]byte(hash.Sum(nil))
}
