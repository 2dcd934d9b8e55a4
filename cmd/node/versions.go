package node

import (
	"errors"
	"time"

	"duet/appmodules"
	"duet/appmodules/engine"
	"duet/blockrepl/backing"
	"duet/blockrepl/divergence"
)

// The versions of volumes that lost a split brain and are kept beside the images.

// openImage opens the image of a volume together with all versions that are kept of it.
func (n *Node) openImage(v appmodules.Volume) (engine.Image, error) {
	path := v.Paths[string(n.self())]
	file, err := backing.OpenFile(path, v.Size)
	if err != nil {
		return nil, n.grown(v, err)
	}
	img, err := n.keeper.Open(v.ID, file)
	if err != nil {
		return nil, err
	}
	return img, nil
}

// setAside begins to keep the present content of an image.
func (n *Node) setAside(v appmodules.Volume, image engine.Image, d engine.Divergence) error {
	img, ok := image.(*divergence.Image)
	if !ok {
		return errors.New("the image was not opened by this node")
	}
	about := divergence.About{Volume: v.ID, Module: d.Module, Target: v.Target, Node: string(n.self()), Epoch: uint64(d.Epoch), Size: v.Size,
		Loser: divergence.Side{Node: string(n.self()), Lineage: d.Loser, FirstWrite: d.Loser.Parted(d.Winner),
			LastWrite: backing.Written(v.Paths[string(n.self())])},
		Winner: divergence.Side{Lineage: d.Winner, FirstWrite: d.Winner.Parted(d.Loser), LastWrite: d.WinnerWritten}}
	if newest, ok := d.Winner.Newest(); ok {
		about.Winner.Node = newest.Holder
	}
	version, err := img.Save(about)
	if err != nil || version == nil {
		return err
	}
	n.log.Error("SPLIT BRAIN: both nodes wrote without each other; this node's version is kept", "module", d.Module, "volume", v.Target,
		"version", version.About().ID, "until", time.Now().Add(divergence.Keep).Format(time.DateOnly),
		"remedy", "duet volume diverged shows it, duet volume export writes it to a file, duet volume drop forgets it")
	return nil
}
