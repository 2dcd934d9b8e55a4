package registry

import (
	"errors"
	"strings"
	"testing"

	"duet/appmodules"
	"duet/console/api"
)

// edited is the YAML of web01 with one part of it exchanged.
func (n *node) edited(from, to string) string {
	n.t.Helper()
	c, err := n.Config(n.t.Context(), "web01")
	must(n.t, err)
	if !strings.Contains(c.YAML, from) {
		n.t.Fatalf("no %q in\n%s", from, c.YAML)
	}
	return strings.Replace(c.YAML, from, to, 1)
}

// TestEdit: an edit of the policy reaches the Runner that runs, the store and the peer.
func TestEdit(t *testing.T) {
	n := newNode(t)
	n.begun("web01")
	n.away = errors.New("it is sick")
	text := n.edited("stall_budget: 2s", "stall_budget: 7s")
	must(t, n.Check(t.Context(), text))
	c, err := n.Apply(t.Context(), text, 0)
	must(t, err)
	n.wg.Wait()
	if got := n.said(); got != "configure 7s, beta gets web01 2" || c.Version != 2 || c.By != "alpha" || c.YAML != text {
		t.Errorf("it did %q and answers %+v", got, c)
	}
	var s Stored
	if _, err := n.values().Load(configKey("web01"), &s); err != nil || s.Version.Number != 2 {
		t.Errorf("the store has %+v, %v", s, err)
	}
	must(t, n.Edited(t.Context(), "web01", s)) // it has that
	if got := n.said(); got != "" {
		t.Errorf("what is not newer did %q", got)
	}
}

// TestRefusedEdits: what a module is made of is not edited, and no name leaves its directory.
func TestRefusedEdits(t *testing.T) {
	n := newNode(t)
	n.begun("web01")
	for what, c := range map[string]struct {
		from, to string
		want     error
	}{
		"no YAML":    {"kind: vm", "kind: [", api.ErrInvalid},
		"a stranger": {"beta", "gamma", api.ErrInvalid},
		"a target":   {"target: vda", "target: vdb", api.ErrInvalid},
		"a size":     {"size: 1048576", "size: 2097152", api.ErrInvalid},
		"a path":     {"/b/vda.raw", "/elsewhere", api.ErrInvalid},
		"an ID":      {"qrstweb01", "another", api.ErrInvalid},
	} {
		text := n.edited(c.from, c.to)
		if err := n.Check(t.Context(), text); !errors.Is(err, c.want) {
			t.Errorf("%s is checked: %v", what, err)
		}
		if _, err := n.Apply(t.Context(), text, 0); !errors.Is(err, c.want) {
			t.Errorf("%s is applied: %v", what, err)
		}
	}
	text := n.edited("name: web01", "name: web02")
	if _, err := n.Apply(t.Context(), text, 0); !errors.Is(err, api.ErrNotFound) {
		t.Errorf("a module that is none: %v", err)
	}
	must(t, n.Check(t.Context(), n.edited("id: abcdefghijklmnopqrstweb01\n", ""))) // as an older release shows it
	s := web("web01").Stored
	s.Version.Number = 2
	if err := n.Edited(t.Context(), "db01", s); !errors.Is(err, api.ErrNotFound) {
		t.Errorf("of a module that is not here: %v", err)
	}
	n.begun("db01")
	if err := n.Edited(t.Context(), "db01", s); !errors.Is(err, api.ErrInvalid) {
		t.Errorf("of another module: %v", err)
	}
	if got := n.said(); got != "" {
		t.Errorf("what is refused did %q", got)
	}
}

// TestImageMoved: where an image has another place the Runner is exchanged, if the new one can be built.
func TestImageMoved(t *testing.T) {
	n := newNode(t)
	n.begun("web01")
	moved := func(number uint64, node, path string) Stored {
		s := web("web01").Stored
		s.Version.Number = number
		s.Module.Volumes()[0].Paths[node] = path
		return s
	}
	n.broken = errors.New("it cannot be built")
	if err := n.Take(t.Context(), moved(2, "alpha", "/new/vda.raw")); !errors.Is(err, n.broken) {
		t.Errorf("a Runner that cannot be built: %v", err)
	}
	if e, err := n.Find("web01"); err != nil || e.Version.Number != 1 || n.said() != "" {
		t.Errorf("it has %+v, %v", e.Version, err)
	}
	n.broken = nil
	must(t, n.Take(t.Context(), moved(2, "alpha", "/new/vda.raw")))
	if got := n.said(); got != "stop, start" {
		t.Errorf("an image here did %q", got)
	}
	s := moved(3, "beta", "/new/vda.raw")
	s.Module.Volumes()[0].Paths["alpha"] = "/new/vda.raw"
	must(t, n.Take(t.Context(), s))
	if got := n.said(); !strings.HasPrefix(got, "configure") {
		t.Errorf("an image there did %q", got)
	}
	s.Version.Number = 4
	s.Module.Spec = s.Module.Spec.On([]appmodules.Volume{})
	if err := n.Take(t.Context(), s); !errors.Is(err, api.ErrInvalid) {
		t.Errorf("no volume any more: %v", err)
	}
}

// TestVersionOrder: two nodes agree which of two configurations is the newest.
func TestVersionOrder(t *testing.T) {
	v, other := Version{Number: 2, By: "alpha"}, Version{Number: 2, By: "beta"}
	if !v.newer(Version{Number: 1, By: "beta"}) || v.newer(v) || v.newer(other) || !other.newer(v) {
		t.Error("two nodes would not agree on the newest version")
	}
}

// TestMessages: what makes no sense is refused before it is served.
func TestMessages(t *testing.T) {
	f := web("web01")
	must(t, f.Check())
	for what, spoil := range map[string]func(*Fresh){
		"a name like a path":   func(f *Fresh) { f.Stored.Module.Name, f.Definition.Module = "../web01", "../web01" },
		"a target like a path": func(f *Fresh) { f.Stored.Module.Volumes()[0].Target = "../../x" },
		"an ID like a path":    func(f *Fresh) { f.Stored.Module.Volumes()[0].ID = "../../x" },
		"no VM":                func(f *Fresh) { f.Stored.Module.Spec = appmodules.VM{Domain: "a/b"} },
		"nobody's":             func(f *Fresh) { f.Stored.Version.By = "../x" },
		"another's definition": func(f *Fresh) { f.Definition.Module = "db01" },
		"no definition":        func(f *Fresh) { f.Definition.Text = nil },
	} {
		f := web("web01")
		if spoil(&f); f.Check() == nil {
			t.Errorf("%s makes sense", what)
		}
	}
}
