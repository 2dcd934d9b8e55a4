package node

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"duet/appmodules"
	"duet/appmodules/engine"
	"duet/appmodules/mirror"
	"duet/appmodules/orders"
	"duet/appmodules/protect"
	"duet/appmodules/registry"
	"duet/cluster"
	"duet/cluster/control"
	"duet/cluster/fencing"
	"duet/console/api"
	"duet/vmmanager/fitness"
	"duet/vmmanager/images"
)

// askBeta sends beta a request as alpha, whatever its daemon would have sent.
func (p *pair) askBeta(path string, in any) error {
	return p.a.node.rpcTo(p.t.Context(), "beta", path, in, nil)
}

// TestPeerNamesNoFiles: what a member asks for can neither remove, make nor use a file of
// another node that this node did not make for it.
func TestPeerNamesNoFiles(t *testing.T) {
	p := newPair(t)
	private := filepath.Join(t.TempDir(), "private")
	must(t, os.WriteFile(private, []byte("mine"), 0o600))
	if err := p.askBeta("images/drop", []protect.Made{{Path: private}}); err != nil || !exists(private) {
		t.Fatalf("a file that is no image was removed (%v)", err)
	}
	must(t, p.askBeta("hostings/unknown/drop", nil)) // undone before, or never done
	at := func(pl protect.Place) images.Hosting {
		return images.Hosting{ID: "1", Module: "web01", VM: "web01", Places: []protect.Place{pl}}
	}
	away := filepath.Join(t.TempDir(), "new.raw")
	dir := filepath.Join(filepath.Dir(p.b.dir), "link")
	must(t, os.Symlink(filepath.Dir(away), dir))
	for what, h := range map[string]images.Hosting{
		"outside":           at(protect.Place{Target: "vda", Size: 1 << 20, Path: away}),
		"through a link":    at(protect.Place{Target: "vda", Size: 1 << 20, Path: filepath.Join(dir, "new.raw")}),
		"not clean":         at(protect.Place{Target: "vda", Size: 1 << 20, Path: p.b.dir + "/../x.raw"}),
		"target":            at(protect.Place{Target: "../../x", Size: 1 << 20}),
		"size":              at(protect.Place{Target: "vda", Size: 1}),
		"module":            {ID: "1", Module: "../x", VM: "web01"},
		"no request":        {Module: "web01", VM: "web01"},
		"a VM that is none": {ID: "1", Module: "web01", VM: "a/b"},
	} {
		if err := p.askBeta("images", h); !errors.Is(err, api.ErrInvalid) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if exists(away) {
		t.Error("an image was made outside")
	}
	var got []protect.Made
	must(t, p.a.node.rpcTo(t.Context(), "beta", "images", at(protect.Place{Target: "vda", Size: 1 << 20}), &got))
	must(t, p.askBeta("images/drop", []protect.Made{{Path: got[0].Path, Was: private}})) // its own note counts
	if exists(got[0].Path) || !exists(private) {
		t.Error("an image that was made for alpha was not undone as it was noted")
	}
}

// TestPeerStoresNoNonsense: a module from another node is checked like one from an admin, and
// uses the images that were made for it.
func TestPeerStoresNoNonsense(t *testing.T) {
	p := newPair(t)
	var got []protect.Made
	h := images.Hosting{ID: "1", Module: "web01", VM: "web01", Places: []protect.Place{{Target: "vda", Size: 1 << 20}}}
	must(t, p.a.node.rpcTo(t.Context(), "beta", "images", h, &got))
	private := filepath.Join(t.TempDir(), "private")
	must(t, errors.Join(os.WriteFile(private, nil, 0o600), os.Truncate(private, 1<<20)))
	good := func() registry.Fresh {
		m := appmodules.Default()
		m.Name, m.Nodes = "web01", []string{"alpha", "beta"}
		m.Spec = appmodules.VM{Domain: "web01", Disks: []appmodules.Volume{{Target: "vda", ID: "0123456789", Size: 1 << 20,
			Paths: map[string]string{"alpha": "/x", "beta": got[0].Path}}}}
		return registry.Fresh{Stored: registry.Stored{Version: registry.Version{Number: 1, By: "alpha"}, Module: m},
			Source:     "alpha",
			Definition: engine.Definition{Module: "web01", Version: 1, Text: []byte("vm web01")}}
	}
	for what, spoil := range map[string]func(*registry.Fresh){
		"a file of beta's": func(nm *registry.Fresh) { nm.Stored.Module.Volumes()[0].Paths["beta"] = private },
		"a name like a path": func(nm *registry.Fresh) {
			nm.Stored.Module.Name, nm.Definition.Module = "../web01",
				"../web01"
		},
		"a target like a path":  func(nm *registry.Fresh) { nm.Stored.Module.Volumes()[0].Target = "../../x" },
		"a policy that is none": func(nm *registry.Fresh) { nm.Stored.Module.Policy.Arbitration = "perhaps" },
		"of two others": func(nm *registry.Fresh) {
			nm.Stored.Module.Nodes = []string{"alpha", "gamma"}
			nm.Stored.Module.Volumes()[0].Paths["gamma"] = "/x"
		},
		"in another's name":    func(nm *registry.Fresh) { nm.Source = "beta" },
		"another's definition": func(nm *registry.Fresh) { nm.Definition.Module = "db01" },
		"no definition":        func(nm *registry.Fresh) { nm.Definition.Text = nil },
	} {
		nm := good()
		spoil(&nm)
		if err := p.askBeta("modules", nm); !errors.Is(err, api.ErrInvalid) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if all := p.b.node.All(); len(all) != 0 {
		t.Fatalf("beta has %d modules", len(all))
	}
	must(t, p.askBeta("modules", good()))
	must(t, p.askBeta("modules", good())) // repeated
	next := good().Stored
	next.Version.Number = 2
	next.Module.Volumes()[0].Paths["beta"] = private
	if err := p.askBeta("modules/web01/config", next); !errors.Is(err, api.ErrInvalid) {
		t.Errorf("another image by a configuration: %v", err)
	}
	for what, ev := range map[string]orders.Message{"an event": {Event: int(appmodules.Granted)},
		"a name": {Name: "granted"}} {
		if err := p.askBeta("modules/web01/command", ev); !errors.Is(err, api.ErrInvalid) {
			t.Errorf("%s as a command: %v", what, err)
		}
	}
	for path, in := range map[string]any{
		"members": cluster.Member{Node: "../x"},
		"voters":  cluster.Voters{Version: 9, Active: []cluster.Witness{{Addr: "nowhere"}}},
		"fence":   fencing.Set{Node: "beta", Levels: json.RawMessage(`[[{"agent":"../x"}]]`)},

		"voters/apart": p.b.node.cluster().Paths("beta", false)[0],
	} {
		if err := p.askBeta(path, in); !errors.Is(err, api.ErrInvalid) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// decodes tells whether a body is a request of that kind, and what it is read as.
func decodes[T any](body []byte) (bool, any) {
	v, err := control.Decode[T](bytes.NewReader(body))
	return err == nil, v
}

// FuzzRequests: whatever another node sends is refused or makes sense, and what is accepted
// is accepted again when it is sent on.
func FuzzRequests(f *testing.F) {
	kinds := []func([]byte) (bool, any){decodes[images.Hosting], decodes[[]protect.Made], decodes[registry.Fresh],
		decodes[registry.Stored], decodes[orders.Message],
		decodes[removal], decodes[fitness.Question], decodes[fencing.Set], decodes[cluster.Voters], decodes[cluster.Member],
		decodes[cluster.Ask],
		decodes[mirror.Told], decodes[engine.Handover], decodes[engine.Complete], decodes[engine.Definition]}
	for i := range kinds {
		f.Add(byte(i), `{}`)
	}
	f.Add(byte(0), `{"id":"1","module":"web01","vm":"web01","places":[{"target":"vda","size":1048576}]}`)
	f.Add(byte(1), `[{"path":"/x","was":"/y"}]`)
	f.Add(byte(4), `{"command":"swap","event":5,"yes":true}`)
	f.Add(byte(8), `{"version":3,"active":[{"addr":"w:7430","key":"`+strings.Repeat("0a", 32)+`","id":"x"}]}`)
	f.Fuzz(func(t *testing.T, kind byte, body string) {
		read := kinds[int(kind)%len(kinds)]
		ok, v := read([]byte(body))
		if !ok {
			return
		}
		again, err := json.Marshal(v)
		if err != nil {
			t.Fatalf("%q is read as %+v, which cannot be sent: %v", body, v, err)
		}
		if ok, _ := read(again); !ok {
			t.Errorf("%q is accepted, %s is not", body, again)
		}
	})
}
