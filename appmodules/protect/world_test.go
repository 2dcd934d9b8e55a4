package protect_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"duet/appmodules"
	"duet/appmodules/protect"
	"duet/blockrepl"
	"duet/blockrepl/memlog"
	"duet/cluster"
	"duet/console/api"
	"duet/vmmanager"
	"duet/vmmanager/fake"
)

// world is what outlives a run of alpha's daemon: its hypervisor, its store, the images and the peer.
type world struct {
	t   *testing.T
	dir string
	hv  *fake.Hypervisor

	mu     sync.Mutex
	store  map[string][]byte
	here   map[string]protect.New    // modules stored on alpha
	there  map[string]protect.New    // and on beta
	begun  map[string]bool           // modules with an engine, in the present run
	images map[string]bool           // files of alpha by path, of beta with its name before
	asked  map[string][]protect.Made // of beta, by the ID of the task
	tasks  int                       // so far
	was    bool                      // it was protected at some time
	deny   bool                      // images cannot be given to the VM's process
}

// made is part of the path of images that Duet makes.
const made = "/volumes/"

const diskSize = 1 << 16

// newWorld has a VM with two disks on alpha.
func newWorld(t *testing.T, state vmmanager.State) *world {
	w := &world{t: t, dir: t.TempDir(), hv: fake.New(fake.Config{}), store: map[string][]byte{},
		here:  map[string]protect.New{},
		there: map[string]protect.New{}, images: map[string]bool{}, asked: map[string][]protect.Made{}}
	def := vmmanager.Definition{Name: "web01", Text: []byte("vm web01")}
	for _, target := range []string{"vda", "vdb"} {
		path := filepath.Join(w.dir, target+".img")
		w.file(path)
		def.Disks = append(def.Disks, vmmanager.Disk{Target: target, Path: path, Format: "raw", Size: diskSize})
	}
	w.must(w.hv.Define(t.Context(), def))
	if state == vmmanager.Running {
		w.must(w.hv.Start(t.Context(), "web01"))
	}
	return w
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) file(path string) {
	w.must(os.MkdirAll(filepath.Dir(path), 0o700))
	w.must(os.WriteFile(path, make([]byte, diskSize), 0o600))
	w.images[path] = true
}

func (w *world) protected() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	_, ok := w.here["web01"]
	return ok
}

// errDead is what every call of a daemon that has died gets.
var errDead = errors.New("the daemon is dead")

// daemon is one run on alpha.
type daemon struct {
	*world
	ctx    context.Context
	die    context.CancelFunc
	works  *protect.Works
	all    sync.WaitGroup
	ended  chan struct{} // one token for each task that has ended
	failed error         // of the last task
	log    bytes.Buffer

	knife   sync.Mutex
	changes int // so far
	dieAt   int // change at which it dies; 0: never
	half    bool
	dead    bool
}

// run is one life of the daemon: it begins the modules that are stored, takes up what is left and does do. It returns
// whether it died of its knife.
func (w *world) run(dieAt int, half bool, do func(d *daemon)) (died bool) {
	d := &daemon{world: w, dieAt: dieAt, half: half, ended: make(chan struct{}, 16)}
	d.ctx, d.die = context.WithCancel(context.Background())
	w.begun = map[string]bool{}
	log := slog.New(slog.NewTextHandler(&d.log, nil))
	var err error
	d.works, err = protect.NewWorks(protect.Config{Cluster: d.cluster, Hypervisor: hypervisor{w.hv, d},
		Modules: modules{d}, Volumes: volumes{d},
		Peers: peers{d}, Store: store{d}, Tasks: board{d}, Spawn: d.spawn, Logger: log})
	w.must(err)
	for name := range w.here {
		w.begun[name] = !d.works.Held(name)
	}
	d.works.Resume()
	do(d)
	d.die()
	d.all.Wait()
	return d.dead
}

func (d *daemon) cluster() cluster.Config {
	return cluster.Config{Name: "lab", Self: "alpha", Members: []cluster.Member{{Node: "alpha"}, {Node: "beta"}}}
}

func (d *daemon) spawn(fn func(context.Context)) { d.all.Go(func() { fn(d.ctx) }) }

// follow waits for a task to end, or for the daemon to die.
func (d *daemon) follow(_ api.Task, err error) {
	if err == nil {
		<-d.ended
	}
}

// finish is follow for a task that must get through.
func (d *daemon) finish(t api.Task, err error) {
	d.t.Helper()
	d.must(err)
	d.follow(t, err)
	d.must(d.failed)
}

// settle waits until nothing is left to take up, or the daemon is dead.
func (d *daemon) settle() {
	for range 1000 {
		d.knife.Lock()
		dead := d.dead
		d.knife.Unlock()
		left, err := d.works.Unfinished()
		d.must(err)
		if dead || len(left) == 0 {
			return
		}
		time.Sleep(time.Millisecond)
	}
	d.die()
	d.all.Wait()
	d.t.Fatalf("what is left does not end: %v\n%s", d.store, &d.log)
}

// change is one call that changes the world, and where the knife falls.
func (d *daemon) change(do func() error) error {
	d.knife.Lock()
	d.changes++
	last := d.dieAt > 0 && d.changes == d.dieAt && !d.dead
	dead := d.dead || last && !d.half
	d.dead = d.dead || last
	d.knife.Unlock()
	if last {
		d.die()
	}
	if dead {
		return errDead
	}
	err := do()
	if last {
		err = errors.Join(errDead, err)
	}
	return err
}

// alive tells a call that changes nothing whether it may be made.
func (d *daemon) alive() error {
	d.knife.Lock()
	defer d.knife.Unlock()
	if d.dead {
		return errDead
	}
	return nil
}

type board struct{ *daemon }

func (b board) Run(_, _ string, work func(context.Context, string, protect.Task) (string, error)) (api.Task, error) {
	b.mu.Lock()
	b.tasks++
	id := fmt.Sprintf("task-%d", b.tasks)
	b.mu.Unlock()
	b.spawn(func(ctx context.Context) {
		_, err := work(ctx, id, task{})
		b.mu.Lock()
		b.failed = err
		b.mu.Unlock()
		b.ended <- struct{}{}
	})
	return api.Task{ID: id}, nil
}

func (b board) Again(string, string, string) func(string, error) { return func(string, error) {} }

type task struct{}

func (task) Step(string, ...any)                    {}
func (task) Copied(string, int64, int64, time.Time) {}

type store struct{ *daemon }

func (s store) Load(key string, v any) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b, ok := s.store[key]
	if !ok {
		return false, nil
	}
	return true, json.Unmarshal(b, v)
}

func (s store) Save(key string, v any) error {
	return s.change(func() error {
		b, err := json.Marshal(v)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.store[key] = b
		return err
	})
}

func (s store) Delete(key string) error {
	return s.change(func() error {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.store, key)
		return nil
	})
}

func (s store) Keys(prefix string) ([]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for key := range maps.Keys(s.store) {
		if strings.HasPrefix(key, prefix) {
			out = append(out, key)
		}
	}
	return out, nil
}

// hypervisor dies in calls that change a VM.
type hypervisor struct {
	*fake.Hypervisor
	d *daemon
}

func (h hypervisor) Define(ctx context.Context, def vmmanager.Definition) error {
	return h.d.change(func() error { return h.Hypervisor.Define(ctx, def) })
}

func (h hypervisor) Grant(ctx context.Context, name string, paths []string) error {
	if h.d.deny {
		return errors.New("not permitted")
	}
	return h.Hypervisor.Grant(ctx, name, paths)
}

func (h hypervisor) Adopt(ctx context.Context, name string, to vmmanager.Endpoint, progress func(int64, int64)) error {
	return h.d.change(func() error { return h.Hypervisor.Adopt(ctx, name, to, progress) })
}

func (h hypervisor) Release(ctx context.Context, name string, to vmmanager.Disk, progress func(int64, int64)) error {
	return h.d.change(func() error { return h.Hypervisor.Release(ctx, name, to, progress) })
}

func (h hypervisor) Refit(ctx context.Context, name string, edit vmmanager.Edit, between func() error) error {
	return h.exchange(name, between, func(between func() error) error {
		return h.Hypervisor.Refit(ctx, name, edit,
			between)
	})
}

func (h hypervisor) Reload(ctx context.Context, name string, edit vmmanager.Edit, between func() error) error {
	return h.exchange(name, between, func(between func() error) error {
		return h.Hypervisor.Reload(ctx, name, edit,
			between)
	})
}

// exchange leaves the VM saved if the daemon dies while it stands still: nobody is there to let it go on.
func (h hypervisor) exchange(name string, between func() error, how func(func() error) error) error {
	return h.d.change(func() error {
		was := h.d.alive()
		err := how(between)
		if was == nil && h.d.alive() != nil && err != nil {
			if state, e := h.State(context.Background(), name); e == nil && state == vmmanager.Running {
				err = errors.Join(err, h.CutRefit(name))
			}
		}
		return err
	})
}

type modules struct{ *daemon }

func (m modules) All() (out []appmodules.Module) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for name, yes := range m.begun {
		if yes {
			out = append(out, m.here[name].Module)
		}
	}
	return out
}

func (m modules) Endpoints(mod appmodules.Module) (out []vmmanager.Endpoint) {
	for _, v := range mod.Volumes() {
		out = append(out, vmmanager.Endpoint{Target: v.Target, Socket: "/run/" + mod.Name + "-" + v.Target})
	}
	return out
}

func (m modules) Stored(name string) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, ok := m.here[name]
	return ok, nil
}

func (m modules) Store(ctx context.Context, n protect.New) error {
	define := hypervisor{m.hv, m.daemon}.Define
	rewired, err := m.hv.Rewire(n.Own, m.Endpoints(n.Module))
	if err == nil {
		err = define(ctx, rewired)
	}
	if err != nil {
		return err
	}
	return m.change(func() error {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.here[n.Module.Name], m.was = n, true
		return nil
	})
}

func (m modules) Begin(name string) error {
	if err := m.alive(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.here[name]; !ok {
		return errors.New("a module that is not stored cannot begin")
	}
	m.begun[name] = true
	return nil
}

func (m modules) Run(context.Context, string) error { return m.alive() }

func (m modules) Remove(_ context.Context, name string) error {
	m.mu.Lock()
	mod := m.here[name].Module
	m.mu.Unlock()
	err := m.Forget(mod)
	if err == nil {
		m.mu.Lock()
		delete(m.begun, name)
		m.mu.Unlock()
	}
	return err
}

func (m modules) Forget(mod appmodules.Module) error {
	return m.change(func() error {
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.here, mod.Name)
		return nil
	})
}

func (m modules) Forgotten(context.Context, appmodules.Module) {}

func (m modules) Leaves(context.Context, string) error { return nil }

func (m modules) Runs(string) bool {
	state, err := m.hv.State(context.Background(), "web01")
	return err == nil && state == vmmanager.Running
}

func (m modules) Part(context.Context, string, string) error { return m.alive() }

func (m modules) Rejoin(string) {}

func (m modules) Kept(_ context.Context, name string) ([]byte, vmmanager.Definition, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.here[name].Rewired, m.here[name].Own, nil
}

func (m modules) Epoch(string) cluster.Epoch { return 1 }

type volumes struct{ *daemon }

func (v volumes) path(m appmodules.Module, target string) string {
	return filepath.Join(v.dir, "volumes", m.Name, target+".raw")
}

func (v volumes) Choose(m appmodules.Module, places []protect.Place) (out []protect.Made, err error) {
	for _, p := range places {
		out = append(out, protect.Made{Path: v.path(m, p.Target), Intended: true})
	}
	return out, v.alive()
}

func (v volumes) Make(_ appmodules.Module, _ []protect.Place, chosen []protect.Made) (out []protect.Made, err error) {
	err = v.change(func() error {
		v.mu.Lock()
		defer v.mu.Unlock()
		for _, m := range chosen {
			v.file(m.Path)
			out = append(out, protect.Made{Path: m.Path})
		}
		return nil
	})
	return out, err
}

func (v volumes) Drop(_ appmodules.Module, all []protect.Made) error {
	return v.change(func() error {
		v.mu.Lock()
		defer v.mu.Unlock()
		for _, m := range all {
			if m.Was == "" {
				delete(v.images, m.Path)
			}
		}
		return nil
	})
}

func (v volumes) Disk(vol appmodules.Volume) vmmanager.Disk {
	return vmmanager.Disk{Target: vol.Target, Path: vol.Paths["alpha"], Format: "raw", Size: vol.Size}
}

func (v volumes) Made(_ appmodules.Module, path string) bool { return strings.Contains(path, made) }

func (v volumes) Seed(context.Context, appmodules.Volume) error { return v.alive() }

func (v volumes) Log(appmodules.Volume) blockrepl.DirtyLog { return memlog.New() }

func (v volumes) Frontend(appmodules.Module, appmodules.Volume) (blockrepl.Frontend, error) {
	return &front{done: make(chan struct{})}, v.alive()
}

// front is a frontend without clients.
type front struct {
	once sync.Once
	done chan struct{}
}

func (f *front) Endpoint() string { return "" }

func (f *front) Serve(blockrepl.Queue) error { <-f.done; return nil }

func (f *front) Close() error {
	f.once.Do(func() { close(f.done) })
	return nil
}

type peers struct{ *daemon }

func (p peers) Judge(context.Context, cluster.NodeID, vmmanager.Definition, appmodules.Module, []protect.Place) (
	[]vmmanager.Finding, error) {
	return nil, p.alive()
}

func (p peers) Elsewhere(context.Context, string) (on, missing []string) { return nil, nil }

func (p peers) Identities(context.Context, cluster.NodeID) (bool, error) { return true, p.alive() }

func (p peers) Make(_ context.Context, _ cluster.NodeID, id string, m appmodules.Module,
	places []protect.Place) ([]protect.Made, error) {
	var out []protect.Made
	err := p.change(func() error {
		p.mu.Lock()
		defer p.mu.Unlock()
		if have, ok := p.asked[id]; ok {
			out = have
			return nil
		}
		for _, place := range places {
			path := "/volumes/" + m.Name + "/" + place.Target + ".raw"
			p.images["beta:"+path] = true
			out = append(out, protect.Made{Path: path})
		}
		p.asked[id] = out
		return nil
	})
	return out, err
}

func (p peers) Drop(_ context.Context, _ cluster.NodeID, id string, _ []protect.Made) error {
	return p.change(func() error {
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, m := range p.asked[id] {
			delete(p.images, "beta:"+m.Path)
		}
		delete(p.asked, id)
		return nil
	})
}

func (p peers) Store(_ context.Context, _ cluster.NodeID, n protect.New) error {
	return p.change(func() error {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.there[n.Module.Name] = n
		return nil
	})
}

func (p peers) Forget(_ context.Context, _ cluster.NodeID, m appmodules.Module, _ cluster.Epoch) error {
	return p.change(func() error {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.there, m.Name)
		return nil
	})
}

func (p peers) Answers(context.Context, cluster.NodeID, appmodules.Module) error { return p.alive() }

func (p peers) Decided(cluster.NodeID) bool { return true }

func (p peers) Clear(ctx context.Context, node cluster.NodeID, name string) error {
	return p.Forget(ctx, node, appmodules.Module{Name: name}, 1)
}
