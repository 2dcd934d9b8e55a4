package stage

import (
	"context"
	"fmt"
	"path/filepath"

	"duet/appmodules"
	"duet/appmodules/directory"
	"duet/appmodules/workload"
	"duet/blockrepl/host"
)

// Room makes the stages of all applications of this host. Any goroutine may use it.
type Room struct {
	cfg     Config
	devices *host.Loop
}

// New returns a Room; nothing is touched yet.
func New(cfg Config) *Room {
	return &Room{cfg: cfg, devices: &host.Loop{Dir: disks(cfg.Dir), Program: cfg.Program,
		Logger: cfg.Logger}}
}

// Of are the stages of an application, first to last.
func (r *Room) Of(m appmodules.Module) []workload.Stage {
	a, ok := m.Spec.(appmodules.Application)
	if !ok {
		return nil
	}
	var all []workload.Stage
	for _, v := range a.Disks {
		socket := filepath.Join(r.cfg.Volumes, appmodules.SocketName(m.Name, v.Target))
		all = append(all, &Files{Name: m.Name, Socket: socket, Export: v.Target, Devices: r.devices,
			Tree: directory.Tree{FileSystem: a.FileSystem, At: r.at(m), Directories: a.Directories}, Logger: r.cfg.Logger})
	}
	for _, p := range a.Addresses {
		all = append(all, Address{p})
	}
	for _, p := range a.Run {
		all = append(all, &Commands{Part: p, Mark: fmt.Sprintf("DUET_PART=%s/%s", m.Identity(), p.Name),
			Env:  []string{"DUET_MODULE=" + m.Name},
			Flag: filepath.Join(r.cfg.Dir, "parts", m.Identity(), p.Name), Logger: r.cfg.Logger})
	}
	return all
}

// at is where the volume of a module is mounted.
func (r *Room) at(m appmodules.Module) string { return filepath.Join(r.cfg.Dir, "mounts", m.Name) }

// behind returns nil for the process behind the block device of a module.
func behind(dir string, program []string, module string, pid int) error {
	return (&host.Loop{Dir: disks(dir), Program: program}).Runs(module, pid)
}

// Make makes the file system of an application on an image that is nobody's yet, and takes in its directories.
func (r *Room) Make(ctx context.Context, m appmodules.Module, image string) error {
	a, ok := m.Spec.(appmodules.Application)
	if !ok {
		return fmt.Errorf("module %s is no application", m.Name)
	}
	if err := directory.Make(ctx, image, a.FileSystem); err != nil {
		return err
	}
	return directory.Fill(ctx, image, r.at(m), a.Directories)
}
