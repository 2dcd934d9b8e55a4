package node

import (
	"cmp"
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"duet/appmodules"
	"duet/appmodules/engine"
	"duet/appmodules/protect"
	"duet/appmodules/registry"
	"duet/cluster"
	"duet/console/tasks"
	"duet/vmmanager/images"
)

// restoreAgain is the time between two attempts to give a peer a module: the peer says twice a second that it lacks
// it.
const restoreAgain = 30 * time.Second

// mending is what was done to give the peer a module that it does not know. Its methods may be called by several
// goroutines.
type mending struct {
	mu      sync.Mutex
	last    time.Time // when it was last tried
	trouble string    // why that failed
	request string    // by which the peer may have made images that it has not undone; empty: there is none
}

// mends are those of all modules. The zero value is ready. They are in memory: the next run of the daemon tries at
// once.
type mends struct {
	mu sync.Mutex
	by map[string]*mending // by name of the module
}

// of is that of a module, which an edit leaves as it is.
func (a *mends) of(m *registry.Entry) *mending {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.by == nil {
		a.by = make(map[string]*mending)
	}
	if a.by[m.Module.Name] == nil {
		a.by[m.Module.Name] = &mending{}
	}
	return a.by[m.Module.Name]
}

// forget drops that of a module that was removed: its name may be used again.
func (a *mends) forget(name string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.by, name)
}

// due: it may be tried now, and the caller does: it has the next half minute for itself, whatever comes of it.
func (m *mending) due() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if time.Since(m.last) < restoreAgain {
		return false
	}
	m.last = time.Now()
	return true
}

// end notes what came of it.
func (m *mending) end(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.trouble = ""
	if err != nil {
		m.trouble = err.Error()
	}
}

// asks is the ID of the request by which the peer makes the images: that of a try before, whose images it may have, as
// it makes none twice for it; else id.
func (m *mending) asks(id string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.request = cmp.Or(m.request, id)
	return m.request
}

// asked ends asks: the peer has undone the images, or has the module on them.
func (m *mending) asked() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.request = ""
}

// problem is why the last try failed; empty: it did not.
func (m *mending) problem() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.trouble
}

// unknownTo is called when the peer of a module says that it does not know the module: it is a new computer under
// an old name, or a release was cut short. A node that has the right to write, and so the newest data, gives the
// module to it. Another one does nothing: its copy may be the older one, and the peer's is gone. It is called by
// the engine's exchange of states, which waits for nothing here, and does the work as a task.
func (n *Node) unknownTo(peer cluster.NodeID, name string) {
	m, err := n.Mirror(name)
	if err != nil || !hasRight(m, n.self()) || !n.mends.of(m).due() {
		return
	}
	n.spawn(func(context.Context) {
		if !n.works.Busy(name) { // else it is about to be released, or not quite protected yet
			n.give(m, peer)
		}
	})
}

// give begins the task that gives a peer a module.
func (n *Node) give(m *registry.Entry, peer cluster.NodeID) {
	name := m.Module.Name
	// Where another work of the module has the way the peer is asked again.
	_, _ = n.run("restore", name, func(ctx context.Context, t *tasks.Task) (string, error) {
		t.Step("gives %s the module, which it does not know", peer)
		err := n.restore(ctx, m, peer, t.State().ID)
		if err != nil {
			err = fmt.Errorf("%s does not know the module and cannot be given it: %w", peer, err)
		}
		n.mends.of(m).end(err)
		if err != nil {
			return "", err
		}
		n.log.Warn("the peer did not know the module and has it again; its copy is made anew", "module", name, "peer", peer)
		return fmt.Sprintf("%s has module %s again; its copy is made anew", peer, name), nil
	})
}

// hasRight: the node runs the module on data that nobody has newer, as of now.
func hasRight(m *registry.Entry, self cluster.NodeID) bool {
	st := m.Engine.State()
	return st.Record.Holds(self) && st.Record.IsComplete() && st.Status.Phase == appmodules.Running
}

// restore makes images on the peer, stores the module there and starts it. Each step may be repeated; the images
// are made for the ID of a task, by which the peer finds what it has made, and undoes it if the module could not
// be stored, or if its answer was lost. The peer's copy begins empty and the engine's resync fills it.
func (n *Node) restore(ctx context.Context, m *registry.Entry, peer cluster.NodeID, task string) error {
	def, err := m.Engine.Definition(ctx) // not the hypervisor's: an edit may not be fit for the peer
	if err != nil {
		return err
	}
	again := n.mends.of(m)
	h := images.Hosting{ID: again.asks(task), Module: m.Module.Name, VM: m.Module.Subject()}
	for _, v := range m.Module.Volumes() {
		pl := protect.Place{Target: v.Target, Size: v.Size}
		// Where an admin put it; what the peer chose itself it may choose again.
		if path := v.Paths[string(peer)]; !strings.HasSuffix(filepath.Dir(path), filepath.Join("volumes", m.Module.Name)) {
			pl.Path = path
		}
		h.Places = append(h.Places, pl)
	}
	var images []protect.Made
	err = n.rpcTo(ctx, peer, "images", h, &images)
	if err == nil {
		err = n.handOver(ctx, m, peer, images, def)
	}
	if err != nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		if (peers{n}).undo(ctx, peer, h.ID, images) == nil { // else the next try uses them
			again.asked()
		}
		return err
	}
	again.asked()
	// The entry was exchanged if its configuration has a new version.
	fresh, err := n.Find(m.Module.Name)
	if err != nil {
		return err
	}
	return n.orders.Command(ctx, fresh, string(peer), appmodules.CmdStart, false)
}

// handOver stores the module on the peer, with the images that it made. Where they lie elsewhere than before the
// configuration gets a new version: it is stored on the peer first, so that this node never names a place that the
// peer does not know. An edit of which the peer has not heard meanwhile is kept (Registry.Given). A peer of version 1
// is given nothing that has an identity: it would take it for an older module of its name.
func (n *Node) handOver(ctx context.Context, m *registry.Entry, peer cluster.NodeID, images []protect.Made,
	def engine.Definition) error {
	// The peer's answer: what is indexed below was made up there.
	if len(images) != len(m.Module.Volumes()) {
		return fmt.Errorf("%s made %d images for %d volumes", peer, len(images), len(m.Module.Volumes()))
	}
	s := m.Stored()
	volumes := slices.Clone(m.Module.Volumes())
	moved := false
	for i, v := range volumes {
		if v.Paths[string(peer)] == images[i].Path {
			continue
		}
		moved = true
		volumes[i].Paths = map[string]string{string(n.self()): v.Paths[string(n.self())], string(peer): images[i].Path}
	}
	if moved {
		s.Module.Spec = s.Module.Spec.On(volumes)
		s.Version = registry.Version{Number: m.Version.Number + 1, Changed: time.Now().UTC(), By: string(n.self())}
	}
	speaks, err := n.plane.Version(ctx, peer)
	if err != nil {
		return err
	}
	if speaks < hasIdentities && m.Module.ID != "" {
		return fmt.Errorf("%w: %s speaks version %d: bring its duetd to this release first", cluster.ErrOlder, peer, speaks)
	}
	if err := n.rpcTo(ctx, peer, "modules", registry.Fresh{Stored: s, Source: n.self(), Definition: def},
		nil); err != nil {
		return err
	}
	return n.Registry.Given(ctx, m.Version, s)
}
