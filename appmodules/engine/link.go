package engine

import (
	"sync"

	"duet/appmodules"
	"duet/blockrepl"
	"duet/blockrepl/backing"
)

// withLink are Disks with the volume of no bytes that links the nodes of a module without volumes:
// it needs no image and nobody uses it. Its log is as durable as any, for generations: they tell after a split brain
// that both nodes went on, also where there are no bytes that differ.
type withLink struct{ Disks }

// Open opens the image, or nothing.
func (d withLink) Open(v appmodules.Volume) (Image, error) {
	if v.IsLink() {
		return nothing{backing.NewMemory(0)}, nil
	}
	return d.Disks.Open(v)
}

// Frontend makes the frontend; that of a link has no client.
func (d withLink) Frontend(module string, v appmodules.Volume) (blockrepl.Frontend, error) {
	if v.IsLink() {
		return &unused{closed: make(chan struct{})}, nil
	}
	return d.Disks.Frontend(module, v)
}

// SetAside keeps the content of an image; a link has none.
func (d withLink) SetAside(v appmodules.Volume, image Image, div Divergence) error {
	if v.IsLink() {
		return nil
	}
	return d.Disks.SetAside(v, image, div)
}

// nothing is an Image of no bytes.
type nothing struct{ blockrepl.Device }

// Close has nothing to do.
func (nothing) Close() error { return nil }

// unused is a Frontend without a client.
type unused struct {
	closed chan struct{}
	once   sync.Once
}

// Endpoint is nowhere.
func (u *unused) Endpoint() string { return "" }

// Serve waits for Close.
func (u *unused) Serve(blockrepl.Queue) error { <-u.closed; return nil }

// Close ends Serve.
func (u *unused) Close() error {
	u.once.Do(func() { close(u.closed) })
	return nil
}
