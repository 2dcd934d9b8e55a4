package images

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"duet/appmodules"
	"duet/appmodules/protect"
	"duet/console/api"
	"duet/vmmanager"
)

// notes are a Store in memory.
type notes struct {
	all  map[string][]byte
	full error // why nothing can be saved
}

func (n *notes) Load(key string, v any) (bool, error) {
	b, ok := n.all[key]
	if !ok {
		return false, nil
	}
	return true, json.Unmarshal(b, v)
}

func (n *notes) Save(key string, v any) (err error) {
	if n.full != nil {
		return n.full
	}
	n.all[key], err = json.Marshal(v)
	return err
}

func (n *notes) Delete(key string) error { delete(n.all, key); return nil }

func (n *notes) Keys(string) ([]string, error) { return slices.Sorted(maps.Keys(n.all)), nil }

// place is a room of beta with directories around it.
type place struct {
	*Room
	t       *testing.T
	store   *notes
	modules []appmodules.Module
	taken   *vmmanager.Finding
	pool    string // where others may name a place
}

func newPlace(t *testing.T) *place {
	t.Helper()
	p := &place{t: t, store: &notes{all: map[string][]byte{}}, pool: t.TempDir()}
	p.Room = New(Config{Self: "beta", Dir: filepath.Join(t.TempDir(), "duet"), Allowed: []string{p.pool}, Store: p.store,
		Modules: func() []appmodules.Module { return p.modules },
		Taken:   func(context.Context, string) (*vmmanager.Finding, error) { return p.taken, nil }})
	return p
}

// ask is a request for one disk of web01.
func ask(id, path string) Hosting {
	return Hosting{ID: id, Module: "web01", VM: "web01",
		Places: []protect.Place{{Target: "vda", Size: 1 << 20, Path: path}}}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// is fails unless exactly those files are where this node makes images of web01.
func (p *place) is(when string, want ...string) {
	p.t.Helper()
	entries, err := os.ReadDir(p.imageDir("web01"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		p.t.Fatal(err)
	}
	var have []string
	for _, e := range entries {
		have = append(have, e.Name())
	}
	if !slices.Equal(have, want) {
		p.t.Errorf("%s there is %q, want %q", when, have, want)
	}
}

// TestHost: a request that is repeated gets the same image, and is undone as it was noted.
func TestHost(t *testing.T) {
	p := newPlace(t)
	first, err := p.Host(t.Context(), ask("1", ""))
	must(t, err)
	again, err := p.Host(t.Context(), ask("1", ""))
	if err != nil || !slices.Equal(first, again) || !p.Made("web01", first[0].Path) || p.Made("db01", first[0].Path) {
		t.Errorf("repeated: %v, %v, was %v", again, err, first)
	}
	other, err := p.Host(t.Context(), ask("2", ""))
	must(t, err)
	p.is("after two requests", "vda-2.raw", "vda.raw")
	m := appmodules.Module{Name: "web01"}
	for path, want := range map[string]bool{first[0].Path: true, other[0].Path: true, "/etc/passwd": false} {
		v := appmodules.Volume{Paths: map[string]string{"beta": path}}
		if got, err := p.MadeFor(m, v); err != nil || got != want {
			t.Errorf("%s was made for web01: %v, %v", path, got, err)
		}
		if got, _ := p.MadeFor(appmodules.Module{Name: "db01"}, v); got {
			t.Errorf("%s was made for db01", path)
		}
	}
	must(t, errors.Join(p.DropHosted("2"), p.DropHosted("2"), p.DropHosted("unknown")))
	p.is("after one is undone", "vda.raw")
	private := filepath.Join(t.TempDir(), "private")
	must(t, os.WriteFile(private, nil, 0o600))
	must(t, p.DropListed([]protect.Made{{Path: private}, {Path: first[0].Path, Was: private}}))
	p.is("after all are undone")
	if !exists(private) || len(p.store.all) != 0 {
		t.Errorf("a file that was not made here is gone, or notes are left: %v", p.store.all)
	}
	p.store.full = errors.New("the disk is full")
	if _, err := p.Host(t.Context(), ask("3", "")); !errors.Is(err, p.store.full) {
		t.Errorf("without a note: %v", err)
	}
	p.is("what could not be noted")
	p.taken = &vmmanager.Finding{Fact: "a VM web01 is defined here"}
	if _, err := p.Host(t.Context(), ask("4", "")); !errors.Is(err, api.ErrConflict) ||
		!strings.Contains(err.Error(), "defined") {
		t.Errorf("a name that is taken: %v", err)
	}
}

// TestChosenPlace: another node's admin may name a place where this one's allows it, not through a link, and no image
// that a module has.
func TestChosenPlace(t *testing.T) {
	p := newPlace(t)
	out := t.TempDir()
	link := filepath.Join(p.pool, "link")
	must(t, os.Symlink(out, link))
	for what, path := range map[string]string{"outside": filepath.Join(out, "new.raw"),
		"through a link": filepath.Join(link, "new.raw"), "a device that is none": "/dev/duet-none"} {
		if _, err := p.Host(t.Context(), ask("1", path)); !errors.Is(err, api.ErrInvalid) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if exists(filepath.Join(out, "new.raw")) {
		t.Error("an image was made outside")
	}
	if _, err := p.Host(t.Context(), ask("1", filepath.Join(p.pool, "nosuch", "x.raw"))); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("in a directory that is not there: %v", err)
	}
	path := filepath.Join(p.pool, "new.raw")
	made, err := p.Host(t.Context(), ask("1", path))
	if err != nil || made[0] != (protect.Made{Path: path}) {
		t.Errorf("a file that was not there: %v, %v", made, err)
	}
	if made, err = p.Host(t.Context(), ask("2", path)); err != nil || made[0] != (protect.Made{Path: path, Was: path}) {
		t.Errorf("one that was: %v, %v", made, err)
	}
	must(t, p.DropHosted("2"))
	if !exists(path) {
		t.Error("the admin's own file was removed")
	}
	bigger := ask("3", path)
	bigger.Places[0].Size *= 2
	if _, err := p.Host(t.Context(), bigger); !errors.Is(err, api.ErrConflict) {
		t.Errorf("one of another size: %v", err)
	}
	p.modules = []appmodules.Module{{Name: "db01", Spec: appmodules.VM{Disks: []appmodules.Volume{
		{Target: "vda", Paths: map[string]string{"beta": path}}}}}}
	if _, err := p.Host(t.Context(), ask("4", path)); !errors.Is(err, api.ErrConflict) ||
		!strings.Contains(err.Error(), "db01/vda") {
		t.Errorf("the image of a module: %v", err)
	}
	must(t, p.DropHosted("1"))
	if !exists(path) {
		t.Error("the image of a module was removed")
	}
}

// TestAllOrNone: what was made is undone when a later one cannot be.
func TestAllOrNone(t *testing.T) {
	p := newPlace(t)
	places := []protect.Place{{Target: "vda", Size: 1 << 20}, {Target: "vdb", Size: 1 << 20, Path: "/nosuch/x.raw"}}
	if made, err := p.Make("web01", places); err == nil || !strings.Contains(err.Error(), "volume vdb on beta") {
		t.Errorf("it made %v, %v", made, err)
	}
	p.is("after that")
}

// TestRetire: what a released module leaves has another name, is used again for one of its size, and undone to that.
func TestRetire(t *testing.T) {
	p := newPlace(t)
	made, err := p.Make("web01", []protect.Place{{Target: "vda", Size: 1 << 20}})
	must(t, err)
	own := filepath.Join(p.pool, "own.raw")
	must(t, os.WriteFile(own, nil, 0o600))
	m := appmodules.Module{Name: "web01", Spec: appmodules.VM{Disks: []appmodules.Volume{
		{Target: "vda", Size: 1 << 20, Paths: map[string]string{"beta": made[0].Path}},
		{Target: "vdb", Paths: map[string]string{"beta": own}}}}}
	if d := p.Disk(m.Volumes()[0]); d.Path != made[0].Path || d.Block || d.Size != 1<<20 || d.Format != "raw" {
		t.Errorf("the disk is %+v", d)
	}
	must(t, errors.Join(p.Retire(m), p.Retire(m)))
	p.is("after the release", "vda.raw"+protect.Retired)
	if !exists(own) {
		t.Error("the admin's own image has another name")
	}
	if again, err := p.Make("web01", []protect.Place{{Target: "vda", Size: 2 << 20}}); err != nil || again[0].Was != "" {
		t.Errorf("of another size: %v, %v", again, err)
	}
	p.is("beside it", "vda-2.raw", "vda.raw"+protect.Retired)
	again, err := p.Make("web01", []protect.Place{{Target: "vda", Size: 1 << 20}})
	if err != nil || again[0].Path != made[0].Path || again[0].Was != made[0].Path+protect.Retired {
		t.Errorf("of the same size: %v, %v", again, err)
	}
	must(t, p.Drop(again))
	p.is("after that was undone", "vda-2.raw", "vda.raw"+protect.Retired)
}

// TestDropTwice: an image that is dropped again takes no file along that only looks like what a release leaves.
func TestDropTwice(t *testing.T) {
	p := newPlace(t)
	chosen := filepath.Join(p.pool, "x.raw")
	theirs := chosen + protect.Retired
	must(t, os.WriteFile(theirs, []byte("an admin's"), 0o600))
	made, err := p.Make("web01", []protect.Place{{Target: "vda", Size: 1 << 20, Path: chosen}})
	must(t, err)
	must(t, errors.Join(p.Drop(made), p.Drop(made)))
	if exists(chosen) || !exists(theirs) {
		t.Errorf("left of its own %v, of the admin's %v", exists(chosen), exists(theirs))
	}
}

// TestWithin: the root is a directory that everything is in.
func TestWithin(t *testing.T) {
	for _, c := range []struct {
		dir, path string
		want      bool
	}{{"/", "/", true}, {"/", "/srv", true}, {"/srv", "/srv", true}, {"/srv", "/srv/x", true}, {"/srv", "/srv2", false},
		{"/srv/x", "/srv", false}} {
		if within(c.dir, c.path) != c.want {
			t.Errorf("%s is in %s: %v", c.path, c.dir, !c.want)
		}
	}
}

// TestRequests: what makes no sense is refused before it is served.
func TestRequests(t *testing.T) {
	must(t, ask("1", "/srv/x.raw").Check())
	for what, spoil := range map[string]func(*Hosting){
		"no request":        func(h *Hosting) { h.ID = "" },
		"a module":          func(h *Hosting) { h.Module = "../x" },
		"a target":          func(h *Hosting) { h.Places[0].Target = "../../x" },
		"a size":            func(h *Hosting) { h.Places[0].Size = 1 },
		"a huge one":        func(h *Hosting) { h.Places[0].Size = maxImage + 512 },
		"not clean":         func(h *Hosting) { h.Places[0].Path = "/srv/../x.raw" },
		"not whole":         func(h *Hosting) { h.Places[0].Path = "x.raw" },
		"a VM that is none": func(h *Hosting) { h.VM = "a/b" },
	} {
		h := ask("1", "")
		if spoil(&h); h.Check() == nil {
			t.Errorf("%s makes sense", what)
		}
	}
}
