package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"duet/appmodules"
	"duet/cluster"
	"duet/console/api"
)

// none holds no module.
func none(string) bool { return false }

// put writes a value of the store as it is.
func (n *node) put(key, text string) {
	n.t.Helper()
	must(n.t, n.cfg.Store.Put(map[string][]byte{key: []byte(text)}))
}

// TestDamagedStore: a configuration that cannot be read, or that this node cannot run, is told with its key and its
// module; what has no configuration does not count.
func TestDamagedStore(t *testing.T) {
	n := newNode(t)
	n.begun("web01")
	n.put(prefix+"half/engine/record", "{}") // it was cut short while it was stored or forgotten
	n.put(prefix+"half/config.old", "{")
	next := n.on(n.cfg.Store, t.TempDir())
	must(t, next.Load(none))
	if all := next.Modules(); len(all) != 1 || all[0].Name != "web01" {
		t.Errorf("it has %+v", all)
	}
	next.Stop(t.Context())
	for what, c := range map[string]struct{ text, want string }{
		"cut off":         {`{"version":{"number":1},"module":{"name":"bad01"`, "bad01/config"},
		"of another kind": {`{"module":{"name":"bad01","kind":"farm"}}`, "farm"},
		"a list":          {`[]`, "bad01/config"},
		"of another type": {`{"module":{"name":["bad01"],"kind":"vm"}}`, "bad01/config"},
		"a bare duration": {`{"module":{"name":"bad01","policy":{"stall_budget":"2"}}}`, "500ms"},
	} {
		n.put(configKey("bad01"), c.text)
		if err := next.Load(none); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", what, err)
		}
		if _, err := n.IsStored("bad01"); err == nil && what != "of another kind" {
			t.Errorf("%s: it is told whether it is stored", what)
		}
		if err := n.Begin("bad01"); err == nil {
			t.Errorf("%s: it began", what)
		}
		must(t, next.Load(func(name string) bool { return name == "bad01" })) // some work has it
		next.Stop(t.Context())
	}
	must(t, n.cfg.Store.Put(nil, configKey("bad01")))
	n.broken = errors.New("no socket can be made")
	if err := n.on(n.cfg.Store, t.TempDir()).Load(none); !errors.Is(err, n.broken) ||
		!strings.Contains(err.Error(), "load module web01") {
		t.Errorf("a Runner that cannot be built: %v", err)
	}
}

// TestJournalThatCannotBeKept: a module without its journal does not run, and says why.
func TestJournalThatCannotBeKept(t *testing.T) {
	n := newNode(t)
	n.cfg.Journals = filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(n.cfg.Journals, nil, 0o600))
	must(t, n.Store(t.Context(), web("web01")))
	if err := n.Begin("web01"); err == nil || !strings.Contains(err.Error(), "journal") || len(n.All()) != 0 {
		t.Errorf("it began with %v, and %d run", err, len(n.All()))
	}
}

// TestHalfRemoved: a module of which something cannot be removed does not count any more, which is told; its log, that
// says which copy is newer, goes last.
func TestHalfRemoved(t *testing.T) {
	n := newNode(t)
	n.begun("web01")
	refused := errors.New("refused")
	n.cfg.Closed = func(appmodules.Module) error { return refused }
	if err := n.Remove(t.Context(), "web01"); !errors.Is(err, refused) || !strings.Contains(err.Error(), "web01") {
		t.Errorf("a socket that cannot be removed: %v", err)
	}
	if is, err := n.IsStored("web01"); is || err != nil || len(n.All()) != 0 {
		t.Errorf("a module half of which is gone counts: %v, %v", is, err)
	}
	if _, l, err := n.cfg.Store.Log("0123web01").Load(); l == nil || err != nil {
		t.Errorf("its log has %v, %v", l, err)
	}
	n.cfg.Closed = func(appmodules.Module) error { return nil }
	must(t, n.Forget(web("web01").Stored.Module)) // again
	if _, l, err := n.cfg.Store.Log("0123web01").Load(); l != nil || err != nil {
		t.Errorf("its log is left: %v, %v", l, err)
	}
}

// TestTwoNodesEdit: each node has its own edits, and the messages come in any order: both end with the same one.
func TestTwoNodesEdit(t *testing.T) {
	edit := func(number uint64, by string, budget time.Duration) Stored {
		s := web("web01").Stored
		s.Version = Version{number, time.Unix(2000, 0).UTC(), by}
		s.Module.Policy.StallBudget = appmodules.Duration(budget)
		return s
	}
	all := []Stored{edit(2, "alpha", 3*time.Second), edit(2, "beta", 4*time.Second), edit(3, "alpha", 5*time.Second),
		edit(3, "beta", 6*time.Second), edit(1, "beta", 7*time.Second)}
	for _, order := range [][]int{{0, 1, 2, 3, 4}, {4, 3, 2, 1, 0}, {3, 0, 4, 2, 1}, {1, 0, 3, 2, 4}, {2, 3, 3, 0, 1}} {
		n := newNode(t)
		n.begun("web01")
		for _, i := range order {
			must(t, n.Edited(t.Context(), "web01", all[i]))
		}
		e, err := n.Find("web01")
		must(t, err)
		if e.Version != all[3].Version || e.Module.Policy.StallBudget != all[3].Module.Policy.StallBudget {
			t.Errorf("%v: it ends with %+v, %v", order, e.Version, time.Duration(e.Module.Policy.StallBudget))
		}
		if done := strings.Split(n.said(), ", "); done[len(done)-1] != "configure 6s" {
			t.Errorf("%v: its Runner heard %q", order, done)
		}
		next := n.on(n.cfg.Store, t.TempDir())
		must(t, next.Load(none))
		if next.All()[0].Version != all[3].Version {
			t.Errorf("%v: the next run has %+v", order, next.All()[0].Version)
		}
		next.Stop(t.Context())
	}
}

// TestPeersEditIsChecked: what a peer sends as an edit may change the policy and the places of images there, and
// nothing that a module is made of; what is refused leaves the store and the Runner as they are.
func TestPeersEditIsChecked(t *testing.T) {
	n := newNode(t)
	n.begun("web01")
	before, _, err := n.cfg.Store.Get(configKey("web01"))
	must(t, err)
	for what, spoil := range map[string]func(*appmodules.Module){
		"a policy that is none":  func(m *appmodules.Module) { m.Policy.Failback = "perhaps" },
		"other nodes":            func(m *appmodules.Module) { m.Nodes = []string{"alpha", "gamma"} },
		"one node":               func(m *appmodules.Module) { m.Nodes = m.Nodes[:1] },
		"another identity":       func(m *appmodules.Module) { m.ID = "bcdefghijklmnopqrstuweb01" },
		"another VM":             func(m *appmodules.Module) { m.Spec = appmodules.VM{Domain: "db", Disks: m.Volumes()} },
		"another disk":           func(m *appmodules.Module) { m.Volumes()[0].Target = "vdb" },
		"another size":           func(m *appmodules.Module) { m.Volumes()[0].Size *= 2 },
		"other data":             func(m *appmodules.Module) { m.Volumes()[0].ID = "9999" },
		"one disk more":          func(m *appmodules.Module) { twice(m) },
		"no place on this node":  func(m *appmodules.Module) { delete(m.Volumes()[0].Paths, "alpha") },
		"a kind of the future":   func(m *appmodules.Module) { m.Kind = "farm" },
		"a name that is no name": func(m *appmodules.Module) { m.Name = "web01/../x" },
	} {
		s := web("web01").Stored
		s.Version = Version{Number: 9, By: "beta"}
		spoil(&s.Module)
		for way, err := range map[string]error{"edited": n.Edited(t.Context(), "web01", s),
			"taken": n.Take(t.Context(), s)} {
			if !errors.Is(err, api.ErrInvalid) && !errors.Is(err, api.ErrNotFound) {
				t.Errorf("%s is %s: %v", what, way, err)
			}
		}
		after, _, err := n.cfg.Store.Get(configKey("web01"))
		if got := n.said(); err != nil || !bytes.Equal(before, after) || got != "" {
			t.Errorf("%s did %q, the store has %s, %v", what, got, after, err)
		}
	}
}

// twice adds another disk.
func twice(m *appmodules.Module) {
	v := m.Volumes()[0]
	v.Target, v.ID = "vdb", "4567"
	m.Spec = m.Spec.On(append(m.Volumes(), v))
}

// TestEditWithoutRoom: an edit that cannot be stored changes nothing: neither what runs nor what is told to the peer.
func TestEditWithoutRoom(t *testing.T) {
	n := newNode(t)
	n.begun("web01")
	text := n.edited("stall_budget: 2s", "stall_budget: 7s")
	s := web("web01").Stored
	s.Version.Number = 2
	s.Module.Volumes()[0].Paths["alpha"] = "/new/vda.raw"
	full, closed := n.cfg.Store, newNode(t)
	must(t, closed.cfg.Store.Close())
	n.cfg.Store = closed.cfg.Store // of which nothing can be written any more
	if _, err := n.Apply(t.Context(), text, 0); err == nil {
		t.Error("it was applied")
	}
	if err := n.Take(t.Context(), s); err == nil {
		t.Error("it was taken")
	}
	n.wg.Wait()
	n.cfg.Store = full
	if e, err := n.Find("web01"); err != nil || e.Version.Number != 1 || n.said() != "" {
		t.Errorf("it has %+v, %v", e.Version, err)
	}
}

// TestSameEdit: what says the same is no new version, and a node that is no member is told with a remedy.
func TestSameEdit(t *testing.T) {
	n := newNode(t)
	n.begun("web01")
	c, err := n.Apply(t.Context(), n.edited("kind: vm", "kind: vm # as before"), 0)
	if got := n.said(); err != nil || c.Version != 1 || got != "" {
		t.Errorf("version %d, %v; it did %q", c.Version, err, got)
	}
	c, err = n.Apply(t.Context(), n.edited("id: abcdefghijklmnopqrstweb01\n", ""), 0)
	if err != nil || c.Version != 1 || !strings.Contains(c.YAML, "id: abcdefghijklmnopqrstweb01") {
		t.Errorf("as an older release shows it: %+v, %v", c, err)
	}
	err = n.Check(t.Context(), strings.ReplaceAll(c.YAML, "beta", "gamma"))
	if !errors.Is(err, api.ErrInvalid) || !strings.Contains(err.Error(), `"gamma" is no member of cluster office`) ||
		!strings.Contains(err.Error(), "duet cluster status") {
		t.Errorf("a stranger: %v", err)
	}
	must(t, n.Check(t.Context(), strings.Replace(c.YAML, "name: web01", "name: web09", 1))) // it may be meant for later
	if _, err := n.Config(t.Context(), "web09"); !errors.Is(err, api.ErrNotFound) {
		t.Errorf("a configuration of nobody: %v", err)
	}
}

// TestPeerIsTriedAgain: a peer that is away is sent what is newest when it is back; one that refuses is not asked
// again, and a module that is removed meanwhile is not sent any more.
func TestPeerIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var sent []uint64
		var answer error
		n := &node{t: t}
		n.Registry = n.on(nil, "")
		n.cfg.Send = func(_ context.Context, to cluster.NodeID, s Stored) error {
			mu.Lock()
			defer mu.Unlock()
			if to != "beta" {
				t.Errorf("%s is sent it", to)
			}
			sent = append(sent, s.Version.Number)
			return answer
		}
		answers := func(with error) {
			mu.Lock()
			defer mu.Unlock()
			answer = with
		}
		was := func() (out []uint64) {
			mu.Lock()
			defer mu.Unlock()
			out, sent = sent, nil
			return out
		}
		entry := &Entry{Module: web("web01").Stored.Module, Version: Version{Number: 1}}
		n.list(entry)
		ctx, cancel := context.WithCancel(t.Context())
		again := func(with error) (done chan struct{}) {
			answers(with)
			done = make(chan struct{})
			go func() { defer close(done); n.sendTo(ctx, "beta", "web01") }()
			synctest.Wait()
			return done
		}
		done := again(api.ErrUnreach)
		time.Sleep(2*sendAgain + sendAgain/2)
		next := *entry
		next.Version.Number = 2
		n.list(&next)
		answers(nil)
		<-done
		if got := was(); !slices.Equal(got, []uint64{1, 1, 1, 2}) {
			t.Errorf("it sent versions %v", got)
		}
		<-again(errors.New("it does not fit"))
		done = again(api.ErrUnreach)
		n.Registry.mu.Lock()
		delete(n.all, "web01")
		n.Registry.mu.Unlock()
		<-done
		n.list(entry)
		done = again(api.ErrUnreach)
		cancel()
		<-done
		if got := was(); !slices.Equal(got, []uint64{2, 2, 1}) {
			t.Errorf("then it sent versions %v", got)
		}
	})
}

// FuzzFresh: whatever a peer sends as a module that begins is refused or can be stored under its own keys and names.
func FuzzFresh(f *testing.F) {
	whole, err := json.Marshal(web("web01"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Add([]byte(`{"stored":{"module":{"kind":"farm"}}}`))
	f.Add([]byte(`{"stored":{"module":{"name":"a","volumes":[{"target":"..","id":"x/y"}]}}}`))
	f.Add(bytes.ReplaceAll(whole, []byte("vda"), []byte("../vda")))
	f.Fuzz(func(t *testing.T, text []byte) {
		var fresh Fresh
		if json.Unmarshal(text, &fresh) != nil || fresh.Check() != nil {
			return
		}
		m := fresh.Stored.Module
		names := []string{m.Name, m.Subject(), string(fresh.Stored.Version.By)}
		for _, v := range m.Volumes() {
			names = append(names, v.Target, v.ID)
		}
		for _, name := range names {
			if name == "" || strings.ContainsAny(name, "/\x00\n") || name == ".." {
				t.Errorf("%q is taken from %q", name, text)
			}
		}
		again, err := json.Marshal(fresh)
		var read Fresh
		if err != nil || json.Unmarshal(again, &read) != nil || read.Check() != nil {
			t.Errorf("what was taken is written %s, %v", again, err)
		}
	})
}
