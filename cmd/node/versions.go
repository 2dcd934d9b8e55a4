package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"duet/appmodules"
	"duet/appmodules/engine"
	"duet/blockrepl/backing"
	"duet/blockrepl/divergence"
	"duet/cluster"
	"duet/console/api"
	"duet/console/tasks"
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

// Diverged lists the versions that are kept on all nodes; one that is away is left out.
func (n *Node) Diverged(ctx context.Context) ([]api.Version, error) {
	out, err := n.versions()
	if err != nil {
		return nil, err
	}
	c := n.cluster()
	for _, m := range c.Members {
		if m.Node == c.Self {
			continue
		}
		ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
		var theirs []api.Version
		if n.rpcTo(ctx, m.Node, "versions", nil, &theirs) == nil {
			out = append(out, theirs...)
		}
		cancel()
	}
	slices.SortFunc(out, func(a, b api.Version) int { return cmp.Compare(a.ID, b.ID) })
	return out, nil
}

// versions lists those of this node.
func (n *Node) versions() ([]api.Version, error) {
	entries, err := n.keeper.List()
	if err != nil {
		return nil, err
	}
	var out []api.Version
	for _, e := range entries {
		out = append(out, n.describe(e))
	}
	return out, nil
}

// describe turns what is kept of a version into the API's words.
func (n *Node) describe(e divergence.Entry) api.Version {
	a := e.About
	v := api.Version{ID: a.ID, Node: string(n.self()), Module: a.Module, Target: a.Target, Size: a.Size, Epoch: a.Epoch,
		Begun: a.Begun, Until: a.Begun.Add(divergence.Keep), Loser: side(a.Loser), Winner: side(a.Winner)}
	if e.Err != nil {
		v.Problem = e.Err.Error()
	}
	if _, live, err := n.keeper.Live(a); err == nil {
		v.Saved = live.Bytes()
	}
	return v
}

func side(s divergence.Side) api.Side {
	return api.Side{Node: s.Node, FirstWrite: known(s.FirstWrite), LastWrite: known(s.LastWrite)}
}

// version finds one by its ID: on this node, or says which other node keeps it.
func (n *Node) version(ctx context.Context, id string) (divergence.Entry, cluster.NodeID, error) {
	all, err := n.Diverged(ctx)
	if err != nil {
		return divergence.Entry{}, "", err
	}
	i := slices.IndexFunc(all, func(v api.Version) bool { return v.ID == id })
	if i < 0 {
		return divergence.Entry{}, "", fmt.Errorf("%w: version %q: `duet volume diverged` lists them", api.ErrNotFound, id)
	}
	at := cluster.NodeID(all[i].Node)
	if at != n.self() {
		return divergence.Entry{}, at, nil
	}
	e, _, err := n.keeper.Find(id)
	return e, at, err
}

const (
	compareTime = 20 * time.Second // an admin waits for the answer
	maxRanges   = 10000
)

// Difference compares a version with the volume as it is now, on the node that keeps it.
func (n *Node) Difference(ctx context.Context, id string) (api.Difference, error) {
	e, at, err := n.version(ctx, id)
	if err != nil {
		return api.Difference{}, err
	}
	if at != n.self() {
		var out api.Difference
		return out, n.rpcTo(ctx, at, "versions/"+id, nil, &out)
	}
	out := api.Difference{Version: n.describe(e), Ranges: []api.Range{}}
	img, v, err := n.keeper.Live(e.About)
	if err != nil {
		return out, closed(e.About)
	}
	ctx, cancel := context.WithTimeout(ctx, compareTime)
	defer cancel()
	out.Bytes, err = v.Differs(ctx, img.Device, func(off, length int64) error {
		if len(out.Ranges) < maxRanges {
			out.Ranges = append(out.Ranges, api.Range{Offset: off, Length: length})
		}
		return nil
	})
	if out.Partly = errors.Is(err, context.DeadlineExceeded); out.Partly {
		err = nil
	}
	return out, err
}

func closed(a divergence.About) error {
	return fmt.Errorf("%w: the volume %s/%s is closed: `duet start %s` first", api.ErrConflict, a.Module, a.Target, a.Module)
}

// DropVersion forgets a version, wherever it is kept.
func (n *Node) DropVersion(ctx context.Context, id string) error {
	e, at, err := n.version(ctx, id)
	if err != nil {
		return err
	}
	if at != n.self() {
		return n.rpcTo(ctx, at, "versions/"+id+"/drop", nil, nil)
	}
	return n.keeper.Drop(e)
}

// ExportVersion writes a version to a new raw image on the node that keeps it.
func (n *Node) ExportVersion(ctx context.Context, id, path string) (api.Task, error) {
	e, at, err := n.version(ctx, id)
	if err != nil {
		return api.Task{}, err
	}
	if at != n.self() {
		return api.Task{}, fmt.Errorf("%w: version %s is kept on %s: run the command there, it writes the file on that node", api.ErrConflict, id, at)
	}
	if !filepath.IsAbs(path) {
		return api.Task{}, fmt.Errorf("%w: %q: give the whole path of the file", api.ErrInvalid, path)
	}
	img, v, err := n.keeper.Live(e.About)
	if err != nil {
		return api.Task{}, closed(e.About)
	}
	return n.run("export", e.About.Module, func(ctx context.Context, t *tasks.Task) (string, error) {
		t.Step("writes version %s to %s", id, path)
		began := time.Now()
		err := v.Export(ctx, img.Device, path, func(done, total int64) { t.Copied("export", done, total, began) })
		return fmt.Sprintf("version %s is in %s", id, path), err
	})
}

// tidyVersions forgets versions after their time.
func (n *Node) tidyVersions(ctx context.Context) {
	tick := time.NewTicker(time.Hour)
	defer tick.Stop()
	for {
		if err := n.keeper.Expire(time.Now()); err != nil {
			n.log.Warn("kept versions cannot be tidied", "err", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}
