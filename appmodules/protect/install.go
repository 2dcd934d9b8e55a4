package protect

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"duet/appmodules"
	"duet/appmodules/config"
	"duet/console/api"
)

// Files makes file systems on images that no volume has yet.
type Files interface {
	// Make makes the file system of an application on an image and fills it with what directories of this host hold. An
	// image that holds something is refused.
	Make(ctx context.Context, m appmodules.Module, image string) error
}

// target is the name of an application's one volume.
const target = "files"

// smallest are the smallest volumes of applications in bytes, by file system: less makes none.
var smallest = map[string]int64{"ext4": 64 << 20, "xfs": 300 << 20}

// Install makes a module of an application on two nodes. Directories that hold something here are taken in by copying.
func (w *Works) Install(_ context.Context, r api.InstallRequest) (api.Task, error) {
	m, err := w.application(r)
	if err != nil {
		return api.Task{}, err
	}
	p := &protection{w: w, record: record{Kind: installing, Module: m, Running: true}}
	a := m.Spec.(appmodules.Application)
	if err := vacant(a.Directories); err != nil {
		return api.Task{}, err
	}
	p.places = map[string][]Place{}
	if len(a.Directories) > 0 {
		if least := smallest[a.FileSystem]; r.Size < least || r.Size%4096 != 0 {
			return api.Task{}, fmt.Errorf("%w: size: %d bytes: say how large the volume is to be, at least %d MiB for %s, "+
				"such as --size 10G", api.ErrInvalid, r.Size, least>>20, a.FileSystem)
		}
		v := appmodules.Volume{Target: target, ID: strings.ToLower(rand.Text()), Size: r.Size, Paths: map[string]string{}}
		p.Module.Spec = a.On([]appmodules.Volume{v})
		for _, node := range m.Nodes {
			p.places[node] = []Place{{Target: target, Size: r.Size}}
		}
	}
	if err := w.accept(p); err != nil {
		return api.Task{}, err
	}
	t, err := w.cfg.Tasks.Run(installing, m.Name, p.run)
	if err != nil {
		w.end(p)
	}
	return t, err
}

// application is the module that a request asks for, without its volume.
func (w *Works) application(r api.InstallRequest) (appmodules.Module, error) {
	c := w.cfg.Cluster()
	m := appmodules.Default()
	m.Kind, m.Nodes = appmodules.KindMirror, []string{string(c.Self)}
	m.Spec = appmodules.Application{}
	peer, err := choosePeer(c, r.Peer)
	if err != nil {
		return m, err
	}
	m.Nodes = append(m.Nodes, peer)
	if m, err = config.ParseOnto(m, "config", []byte(r.Config)); err != nil {
		return m, fmt.Errorf("%w: %v", api.ErrInvalid, err)
	}
	a, is := m.Spec.(appmodules.Application)
	switch {
	case !is:
		return m, fmt.Errorf("%w: kind: a module of kind %s is made by `duet vm protect`", api.ErrInvalid, m.Kind)
	case len(a.Disks) > 0:
		return m, fmt.Errorf("%w: volumes: the install makes them", api.ErrInvalid)
	case m.Peer(string(c.Self)) == "":
		return m, fmt.Errorf("%w: nodes: %s is not among %s: install it on one of them", api.ErrInvalid, c.Self,
			strings.Join(m.Nodes, " and "))
	}
	m.ID = strings.ToLower(rand.Text())
	if faults := m.Validate(); len(faults) > 0 {
		return m, fmt.Errorf("%w: %s", api.ErrInvalid, faults[0].Error())
	}
	return m, w.apart(m)
}

// apart refuses directories and addresses that another module has.
func (w *Works) apart(m appmodules.Module) error {
	a := m.Spec.(appmodules.Application)
	for _, other := range w.cfg.Modules.All() {
		o, is := other.Spec.(appmodules.Application)
		if !is {
			continue
		}
		if what := a.Shares(o); what != "" {
			return fmt.Errorf("%w: module %s has %s already", api.ErrConflict, other.Name, what)
		}
	}
	return nil
}

// fill makes the file system on the image of this node; the other node gets it by the first resync. An install that is
// cut in it is undone, never gone on with: what is half there is not known to be whole.
func (p *protection) fill(ctx context.Context) error {
	volumes := p.Module.Volumes()
	if len(volumes) == 0 {
		return nil
	}
	p.say("makes the file system and takes in the directories")
	return p.w.cfg.Files.Make(ctx, p.Module, volumes[0].Paths[string(p.w.self())])
}

// installed is what an install has led to, in a sentence.
func (p *protection) installed(ctx context.Context) string {
	name := p.Module.Name
	if !p.runs(ctx) {
		return fmt.Sprintf("Module %s is installed, was told to run, and does not say yet that it does: `duet status %s` "+
			"says what keeps it%s", name, name, p.caution())
	}
	return fmt.Sprintf("Module %s is installed and runs. The first copy to %s goes on without this task, and until it is "+
		"complete there is one copy only: `duet status %s` shows how far it is%s", name, p.peer(), name, p.caution())
}

// vacant refuses directories of this host into which an install would look in vain: what is no directory.
func vacant(directories []string) error {
	for _, dir := range directories {
		info, err := os.Stat(dir)
		switch {
		case errors.Is(err, os.ErrNotExist):
		case err != nil:
			return err
		case !info.IsDir():
			return fmt.Errorf("%w: %s is no directory", api.ErrInvalid, dir)
		}
		if real, err := filepath.EvalSymlinks(dir); err == nil && real != dir {
			return fmt.Errorf("%w: %s leads to %s: name that", api.ErrInvalid, dir, real)
		}
	}
	return nil
}
