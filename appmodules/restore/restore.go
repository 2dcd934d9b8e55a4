// Package restore gives a module to a peer that does not know it: a new computer under an old name, or one that has
// lost its store. The node that has the right to write, and so the newest data, does it by itself; the peer's copy
// begins empty, and the engine's resync fills it.
//
// Nothing is stored here: the next run of the daemon begins anew, and the peer undoes what it has made for a try that
// did not end (package images).
package restore

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"duet/appmodules"
	"duet/appmodules/engine"
	"duet/appmodules/protect"
	"duet/appmodules/registry"
	"duet/cluster"
	"duet/console/api"
	"duet/console/tasks"
	"duet/vmmanager/images"
)

// Config is what a Room is given. All of it is needed; its functions may be called from any goroutine, and each ends
// with its context.
type Config struct {
	Self     cluster.NodeID
	Registry *registry.Registry
	// Busy: another work of the module goes on, or waits to be taken up.
	Busy func(module string) bool
	// Run begins a task of a module; api.ErrConflict while it has another one.
	Run func(kind, module string, work tasks.Work) (api.Task, error)
	// Spawn runs a function until the node ends.
	Spawn func(func(context.Context))
	// Call is a request to another node.
	Call func(ctx context.Context, node cluster.NodeID, path string, in, out any) error
	// Undo has another node undo what it has made for the request id.
	Undo func(ctx context.Context, node cluster.NodeID, id string, made []protect.Made) error
	// Version is what another node speaks.
	Version func(context.Context, cluster.NodeID) (cluster.Version, error)
	// Start starts the module on another node, as an operator would.
	Start  func(ctx context.Context, m *registry.Entry, node cluster.NodeID) error
	Logger *slog.Logger
}

// Room gives modules to peers. Any goroutine may call it.
type Room struct {
	cfg   Config
	mends mends
}

// New builds one that has tried nothing yet.
func New(cfg Config) *Room { return &Room{cfg: cfg} }

// Notices say why the peer could not be given a module when that was last tried; none: it could, or need not be.
func (r *Room) Notices(module string) []api.Notice {
	trouble := r.mends.of(module).problem()
	if trouble == "" {
		return nil
	}
	return []api.Notice{{Level: "warning", Code: "not-given", Text: trouble,
		Remedy: fmt.Sprintf("nothing, if that has been mended: it is tried again every %v", again)}}
}

// Forget drops what was noted of a module that is gone: its name may be used again.
func (r *Room) Forget(module string) { r.mends.forget(module) }

// Unknown is called when the peer of a module says that it does not know the module: it is a new computer under
// an old name, or a release was cut short. A node that has the right to write, and so the newest data, gives the
// module to it. Another one does nothing: its copy may be the older one, and the peer's is gone. It is called by
// the engine's exchange of states, which waits for nothing here, and does the work as a task.
func (r *Room) Unknown(peer cluster.NodeID, name string) {
	m, err := r.cfg.Registry.Mirror(name)
	if err != nil || !hasRight(m, r.cfg.Self) || !r.mends.of(m.Module.Name).due() {
		return
	}
	r.cfg.Spawn(func(context.Context) {
		if !r.cfg.Busy(name) { // else it is about to be released, or not quite protected yet
			r.give(m, peer)
		}
	})
}

// give begins the task that gives a peer a module.
func (r *Room) give(m *registry.Entry, peer cluster.NodeID) {
	name := m.Module.Name
	// Where another work of the module has the way the peer is asked again.
	_, _ = r.cfg.Run("restore", name, func(ctx context.Context, t *tasks.Task) (string, error) {
		t.Step("gives %s the module, which it does not know", peer)
		err := r.Give(ctx, m, peer, t.State().ID)
		if err != nil {
			err = fmt.Errorf("%s does not know the module and cannot be given it: %w", peer, err)
		}
		r.mends.of(m.Module.Name).end(err)
		if err != nil {
			return "", err
		}
		r.cfg.Logger.Warn("the peer did not know the module and has it again; its copy is made anew", "module", name,
			"peer", peer)
		return fmt.Sprintf("%s has module %s again; its copy is made anew", peer, name), nil
	})
}

// hasRight: the node runs the module on data that nobody has newer, as of now.
func hasRight(m *registry.Entry, self cluster.NodeID) bool {
	st := m.Engine.State()
	return st.Record.Holds(self) && st.Record.IsComplete() && st.Status.Phase == appmodules.Running
}

// Give makes images on the peer, stores the module there and starts it. Each step may be repeated; the images
// are made for the ID of a task, by which the peer finds what it has made, and undoes it if the module could not
// be stored, or if its answer was lost. The peer's copy begins empty and the engine's resync fills it.
func (r *Room) Give(ctx context.Context, m *registry.Entry, peer cluster.NodeID, task string) error {
	def, err := m.Engine.Definition(ctx) // not the hypervisor's: an edit may not be fit for the peer
	if err != nil {
		return err
	}
	again := r.mends.of(m.Module.Name)
	h := images.Hosting{ID: again.asks(task), Module: m.Module.Name, VM: m.Module.Subject(), Fresh: true}
	for _, v := range m.Module.Volumes() {
		pl := protect.Place{Target: v.Target, Size: v.Size}
		// Where an admin put it; what the peer chose itself it may choose again.
		if path := v.Paths[string(peer)]; !strings.HasSuffix(filepath.Dir(path), filepath.Join("volumes", m.Module.Name)) {
			pl.Path = path
		}
		h.Places = append(h.Places, pl)
	}
	var images []protect.Made
	err = r.cfg.Call(ctx, peer, "images", h, &images)
	if err == nil {
		err = r.handOver(ctx, m, peer, images, def)
	}
	if err != nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		if r.cfg.Undo(ctx, peer, h.ID, images) == nil { // else the next try uses them
			again.asked()
		}
		return err
	}
	again.asked()
	// The entry was exchanged if its configuration has a new version.
	fresh, err := r.cfg.Registry.Find(m.Module.Name)
	if err != nil {
		return err
	}
	return r.cfg.Start(ctx, fresh, peer)
}

// handOver stores the module on the peer, with the images that it made. Where they lie elsewhere than before the
// configuration gets a new version: it is stored on the peer first, so that this node never names a place that the
// peer does not know. An edit of which the peer has not heard meanwhile is kept (Registry.Given). A peer of version 1
// is given nothing that has an identity: it would take it for an older module of its name.
func (r *Room) handOver(ctx context.Context, m *registry.Entry, peer cluster.NodeID, images []protect.Made,
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
		volumes[i].Paths = map[string]string{string(r.cfg.Self): v.Paths[string(r.cfg.Self)], string(peer): images[i].Path}
	}
	if moved {
		s.Module.Spec = s.Module.Spec.On(volumes)
		s.Version = registry.Version{Number: m.Version.Number + 1, Changed: time.Now().UTC(), By: string(r.cfg.Self)}
	}
	speaks, err := r.cfg.Version(ctx, peer)
	if err != nil {
		return err
	}
	if speaks < registry.HasIdentities && m.Module.ID != "" {
		return fmt.Errorf("%w: %s speaks version %d: bring its duetd to this release first", cluster.ErrOlder, peer, speaks)
	}
	if err := r.cfg.Call(ctx, peer, "modules", registry.Fresh{Stored: s, Source: r.cfg.Self, Definition: def},
		nil); err != nil {
		return err
	}
	return r.cfg.Registry.Given(ctx, m.Version, s)
}
