package mirror

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"duet/appmodules"
	"duet/appmodules/engine"
	"duet/blockrepl/proof"
)

// TestPeerOfAnotherRelease: what an older node tells is heard without notices, and words of a newer one are no role
// that acts.
func TestPeerOfAnotherRelease(t *testing.T) {
	for text, want := range map[string]string{`{"status":{"role":"PRIM"}}`: "PRIM", `{"status":{"role":"LEADS"}}`: "UNKNOWN",
		`{"status":{"role":"STOP"},"more":{"of":"the future"}}`: "STOP"} {
		var told Told
		if err := json.Unmarshal([]byte(text), &told); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		got := nodeState("beta", "web01", told.State.Status)
		if got.Role != want || len(got.Notices) != 0 || told.Status.Role.Acts() != (want == "PRIM") {
			t.Errorf("%s: %+v", text, got)
		}
	}
}

// TestStopping: what a node that stops a module says tells it from one that starts it: both are on their way.
func TestStopping(t *testing.T) {
	for _, phase := range []appmodules.Phase{appmodules.Asking, appmodules.Stopping, appmodules.Stopped} {
		s := engine.Status{Phase: phase}
		s.Role, s.Status = appmodules.Machine{Phase: phase}.Display()
		if got := nodeState("beta", "web01", s); got.Stopping != (phase == appmodules.Stopping) {
			t.Errorf("%v: %+v", phase, got)
		}
	}
}

// TestImagesThatCannotBe: an image that is gone, and a place that is none, are errors of opening it, without the advice
// for one that has grown.
func TestImagesThatCannotBe(t *testing.T) {
	s := newShop(t)
	m := s.web(t)
	d, v := s.cfg.Volumes.Of(m), m.Volumes()[0]
	path := v.Paths["alpha"]
	for what, spoil := range map[string]func(){
		"gone":        func() { must(t, os.Remove(path)) },
		"a directory": func() { must(t, os.Mkdir(path, 0o700)) },
		"no place":    func() { delete(v.Paths, "alpha") },
	} {
		v.Paths["alpha"] = path
		must(t, os.RemoveAll(path))
		must(t, os.WriteFile(path, make([]byte, v.Size), 0o600))
		if what == "a directory" {
			must(t, os.Remove(path))
		}
		spoil()
		if img, err := d.Open(v); err == nil || img != nil || strings.Contains(err.Error(), "duet vm release") {
			t.Errorf("%s: %v, %v", what, img, err)
		}
	}
}

// TestSocketsThatCannotBe: a volume whose socket cannot be made is not served, and one that cannot be removed is told.
func TestSocketsThatCannotBe(t *testing.T) {
	s := newShop(t)
	m := s.web(t)
	s.cfg.Volumes.cfg.Dir = filepath.Join(s.dir, "file", "r")
	must(t, os.WriteFile(filepath.Join(s.dir, "file"), nil, 0o600))
	if _, err := s.cfg.Volumes.Of(m).Frontend("web01", m.Volumes()[0]); err == nil ||
		!strings.Contains(err.Error(), "directory of sockets") {
		t.Errorf("it is served: %v", err)
	}
	s.cfg.Volumes.cfg.Dir = filepath.Join(s.dir, "r")
	full := filepath.Join(s.cfg.Volumes.Endpoints(m)[0].Socket, "in the way")
	must(t, os.MkdirAll(full, 0o700))
	if err := s.cfg.Volumes.Remove(m); err == nil {
		t.Error("what is left of the socket is not told")
	}
}

// TestBuildRefuses: a module whose record cannot be read is not built: without it this node would forget what it has
// promised.
func TestBuildRefuses(t *testing.T) {
	s := newShop(t)
	web := s.web(t)
	for _, key := range []string{"record", "kept"} {
		s.cfg.Store = func(string) engine.Store { return values{key: []byte("{")} }
		if _, err := s.Build(web, &still{}, func(engine.Transition) {}); err == nil ||
			!strings.Contains(err.Error(), "of web01") {
			t.Errorf("%s: it is built: %v", key, err)
		}
	}
}

// TestProofPlaces: a place that differs on both copies is told as such, with when it was found and proven.
func TestProofPlaces(t *testing.T) {
	began := time.Now().Add(-time.Hour)
	l := proof.New("id", 2*proof.Step, began)
	l.Looked(began.Add(time.Minute), 0, &proof.Place{Off: 0, Len: 64 << 10, Regions: 1, Changed: "alpha", Both: true})
	got := proofStatus(&engine.ProofStatus{Ledger: l, Pass: time.Hour})
	if len(got.Places) != 1 || got.Places[0].Changed != "both" || got.Ends != nil {
		t.Errorf("%+v", got)
	}
}

// TestPausedIsSaid: the reason of the last transition is that the workload runs, which somebody has paused since.
func TestPausedIsSaid(t *testing.T) {
	const frozen = appmodules.Frozen
	s := engine.Status{Role: appmodules.Prim, Status: appmodules.Ready, Phase: appmodules.Running, Why: "the VM runs",
		Workload: "paused", Notices: []appmodules.Notice{{Code: "paused", Text: "VM web is paused"}}}
	for want, change := range map[string]func(*engine.Status){
		"VM web is paused; before that: the VM runs": func(*engine.Status) {},
		// Of another release.
		"it is paused; before that: the VM runs": func(s *engine.Status) { s.Notices = nil },
		"the VM runs":                            func(s *engine.Status) { s.Workload = "running" },
		"writes wait":                            func(s *engine.Status) { s.Phase, s.Why = frozen, "writes wait" },
	} {
		now := s
		change(&now)
		if got := nodeState("alpha", "web01", now).Why; got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
