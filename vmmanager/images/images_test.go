package images

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
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
	all    map[string][]byte
	full   error        // why nothing can be saved
	saving func() error // before each Save that is not full; its error is that of Save
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
	if n.saving != nil {
		if err := n.saving(); err != nil {
			return err
		}
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
		Taken:   func(context.Context, string, bool) (*vmmanager.Finding, error) { return p.taken, nil }})
	return p
}

// make is Choose and Make for images of web01.
func (p *place) make(places ...protect.Place) ([]protect.Made, error) {
	p.t.Helper()
	chosen, err := p.Choose("web01", places)
	must(p.t, err)
	return p.Make("web01", places, chosen)
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
	second := filepath.Join(p.pool, "x.raw")
	places := []protect.Place{{Target: "vda", Size: 1 << 20}, {Target: "vdb", Size: 1 << 20, Path: second}}
	chosen, err := p.Choose("web01", places)
	must(t, err)
	must(t, os.WriteFile(second, []byte("an admin's"), 0o600)) // since it was chosen
	made, err := p.Make("web01", places, chosen)
	if err == nil || !strings.Contains(err.Error(), "volume vdb on beta") {
		t.Errorf("it made %v, %v", made, err)
	}
	p.is("after that")
}

// TestRetire: what a released module leaves has another name, is used again for one of its size, and undone to that.
func TestRetire(t *testing.T) {
	p := newPlace(t)
	made, err := p.make(protect.Place{Target: "vda", Size: 1 << 20})
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
	if again, err := p.make(protect.Place{Target: "vda", Size: 2 << 20}); err != nil || again[0].Was != "" {
		t.Errorf("of another size: %v, %v", again, err)
	}
	p.is("beside it", "vda-2.raw", "vda.raw"+protect.Retired)
	again, err := p.make(protect.Place{Target: "vda", Size: 1 << 20})
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
	made, err := p.make(protect.Place{Target: "vda", Size: 1 << 20, Path: chosen})
	must(t, err)
	must(t, errors.Join(p.Drop(made), p.Drop(made)))
	if exists(chosen) || !exists(theirs) {
		t.Errorf("left of its own %v, of the admin's %v", exists(chosen), exists(theirs))
	}
}

// holds fails unless a file has that content.
func holds(t *testing.T, path, want string) {
	t.Helper()
	if got, err := os.ReadFile(path); err != nil || string(got) != want {
		t.Errorf("%s is %q, %v", filepath.Base(path), got, err)
	}
}

// TestDropIntended: of an image that was noted and perhaps not made an undo takes what was made, and leaves what
// else has its name.
func TestDropIntended(t *testing.T) {
	p := newPlace(t)
	places := []protect.Place{{Target: "vda", Size: 1 << 20}}
	for _, c := range []struct {
		name string
		do   func(path string) error // in place of Make, or in its midst
		left []string
	}{
		{"nothing was made", func(string) error { return nil }, nil},
		{"it was made", func(path string) error { return createImage(path, 1<<20) }, nil},
		{"it was begun", func(path string) error { return os.WriteFile(path, nil, 0o600) }, nil},
		{"an admin's data", func(path string) error { return os.WriteFile(path, make([]byte, 512), 0o600) },
			[]string{"vda.raw"}},
		{"an admin's text", func(path string) error { return os.WriteFile(path, []byte("x"), 0o600) },
			[]string{"vda.raw"}},
		{"an admin's new image", func(path string) error {
			return errors.Join(createImage(path, 1<<20), os.Chmod(path, 0o644))
		}, []string{"vda.raw"}},
		{"a link", func(path string) error { return os.Symlink("/nosuch", path) }, []string{"vda.raw"}},
		{"what a release left", func(path string) error { return os.WriteFile(path+protect.Retired, nil, 0o600) },
			[]string{"vda.raw" + protect.Retired}},
	} {
		chosen, err := p.Choose("web01", places)
		must(t, err)
		must(t, errors.Join(os.MkdirAll(p.imageDir("web01"), 0o700), c.do(chosen[0].Path)))
		must(t, errors.Join(p.Drop(chosen), p.Drop(chosen)))
		p.is(c.name, c.left...)
		must(t, os.RemoveAll(p.imageDir("web01")))
	}
	old := filepath.Join(p.imageDir("web01"), "vda.raw"+protect.Retired)
	for _, renamed := range []bool{false, true} {
		must(t, errors.Join(os.MkdirAll(p.imageDir("web01"), 0o700), os.WriteFile(old, make([]byte, 1<<20), 0o600)))
		chosen, err := p.Choose("web01", places)
		must(t, err)
		if chosen[0].Was != old {
			t.Errorf("it would make %+v", chosen)
		}
		if renamed {
			must(t, os.Rename(old, chosen[0].Path))
		}
		must(t, errors.Join(p.Drop(chosen), p.Drop(chosen)))
		p.is("what was there before", filepath.Base(old))
		if renamed {
			continue
		}
		must(t, os.WriteFile(chosen[0].Path, []byte("an admin's"), 0o600))
		if made, err := p.Make("web01", places, chosen); !errors.Is(err, fs.ErrExist) {
			t.Errorf("over an admin's file: %v, %v", made, err)
		}
		must(t, p.Drop(chosen))
		holds(t, chosen[0].Path, "an admin's")
		p.is("beside an admin's file", "vda.raw", filepath.Base(old))
		must(t, os.Remove(chosen[0].Path))
	}
}

// TestHostDies: a node that dies over a hosting, wherever, leaves no image that it does not know of: the request that
// is repeated gets one, and undoing it leaves nothing.
func TestHostDies(t *testing.T) {
	type death struct{}
	die := func(p *place, at int) {
		saves := 0
		p.store.saving = func() error {
			if saves++; saves == at {
				panic(death{})
			}
			return nil
		}
		defer func() {
			p.store.saving = nil
			if r := recover(); r != (death{}) {
				t.Errorf("at save %d it died of %v", at, r)
			}
			p.Room = New(p.cfg)
		}()
		_, err := p.Host(t.Context(), ask("1", ""))
		t.Errorf("it did not die: %v", err)
	}
	for at := 1; at <= 2; at++ {
		p := newPlace(t)
		die(p, at)
		must(t, p.DropHosted("1"))
		p.is("after a death that is undone")
		die(p, at)
		made, err := p.Host(t.Context(), ask("1", ""))
		if err != nil || len(made) != 1 || made[0].Intended {
			t.Errorf("repeated: %+v, %v", made, err)
		}
		p.is("after a death that is repeated", "vda.raw")
		must(t, p.DropHosted("1"))
		p.is("in the end")
		if len(p.store.all) > 0 {
			t.Errorf("notes are left: %s", p.store.all)
		}
	}
	// What has the name by the next run is nobody else's to use or to undo.
	p := newPlace(t)
	die(p, 2)
	path := filepath.Join(p.imageDir("web01"), "vda.raw")
	must(t, os.WriteFile(path, []byte("an admin's"), 0o600))
	v := appmodules.Volume{Paths: map[string]string{"beta": path}}
	if yes, err := p.MadeFor(appmodules.Module{Name: "web01"}, v); err != nil || yes {
		t.Errorf("it was made for web01: %v, %v", yes, err)
	}
	must(t, p.DropHosted("1"))
	holds(t, path, "an admin's")
}

// TestHostWhoseUndoFails: images that can neither be noted as made nor be dropped are dropped when that is asked for.
func TestHostWhoseUndoFails(t *testing.T) {
	p := newPlace(t)
	dir := p.imageDir("web01")
	saves, full := 0, errors.New("the disk is full")
	p.store.saving = func() error {
		if saves++; saves < 2 {
			return nil
		}
		// No name in it can be looked at.
		return errors.Join(full, os.Rename(dir, dir+".away"), os.WriteFile(dir, nil, 0o600))
	}
	if _, err := p.Host(t.Context(), ask("1", "")); !errors.Is(err, full) || !strings.Contains(err.Error(), "undo image") {
		t.Errorf("it says %v", err)
	}
	must(t, errors.Join(os.Remove(dir), os.Rename(dir+".away", dir)))
	p.is("of both faults", "vda.raw")
	must(t, p.DropHosted("1"))
	p.is("in the end")
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
		"a huge one":        func(h *Hosting) { h.Places[0].Size = 1<<50 + 512 },
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
