package stage

import (
	"context"
	"errors"
	"log/slog"

	"duet/appmodules/directory"
	"duet/blockrepl/host"
)

// Files are directories on a volume that is served to this host.
type Files struct {
	Name    string // of the block device
	Socket  string // where the volume is served
	Export  string
	Devices host.Driver
	Tree    directory.Tree
	Logger  *slog.Logger
}

// Label is that of all directories.
func (f *Files) Label() string { return "the directories" }

// Up: something is mounted, or the block device is there.
func (f *Files) Up(context.Context) (up, whole bool, err error) {
	is, whole, err := f.Tree.Mounted()
	if err != nil {
		return false, false, err
	}
	device, err := f.Devices.Attached(f.Name)
	return is || device != "", whole && device != "", err
}

// Start makes the block device and mounts what is on it.
func (f *Files) Start(ctx context.Context) error {
	device, err := f.Devices.Attach(ctx, f.Name, f.Socket, f.Export)
	if err != nil {
		return err
	}
	return f.Tree.Mount(ctx, device)
}

// Stop unmounts it, so that all is on the volume, and takes the block device away.
func (f *Files) Stop(ctx context.Context) error {
	err := f.Tree.Unmount(ctx, func(users string) {
		f.Logger.Warn("processes that use the directories are ended", "processes", users)
	})
	if err != nil {
		return err
	}
	return f.Devices.Detach(ctx, f.Name)
}

// Kill cuts the file system off: nothing of what was not flushed reaches the volume, as after a loss of power. That
// comes first, as all else would wait for a volume that does not answer.
func (f *Files) Kill(ctx context.Context) error {
	if err := f.Devices.Abort(f.Name); err != nil {
		return err
	}
	if err := errors.Join(f.Tree.EndUsers(), f.Tree.Shut()); err != nil {
		return err
	}
	return f.Devices.Detach(ctx, f.Name)
}
