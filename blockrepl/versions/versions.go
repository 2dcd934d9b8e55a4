// Package versions is what admins see and do of the versions of volumes that lost a split brain: all nodes' versions
// listed together, one compared with the volume as it is now, exported or dropped on the node that keeps it. How they
// are kept is package divergence.
//
// It keeps nothing itself and starts no goroutine but the task of an export; Tidy runs on its caller's. Commands
// are found by ID over all nodes, then done on the node that keeps the version: a comparison or an export also
// reads the image there, as what was not overwritten yet is only in it. What an admin can mend is an error of
// package api that names the command.
package versions

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"time"

	"duet/blockrepl/divergence"
	"duet/cluster"
	"duet/console/api"
	"duet/console/tasks"
)

// Config says what an Archive works with; all fields are needed.
type Config struct {
	Self    cluster.NodeID
	Cluster func() cluster.Config
	Keeper  *divergence.Keeper // of this node
	// Call asks another node for its versions, as the one there answers: "versions", "versions/ID" or
	// "versions/ID/drop".
	Call func(ctx context.Context, node cluster.NodeID, path string, out any) error
	// Run begins a task; a module has one at a time, so that two exports of its versions never run at once.
	Run    func(kind, module string, work tasks.Work) (api.Task, error)
	Logger *slog.Logger
}

// Archive has the versions. Any number of goroutines may use it.
type Archive struct{ cfg Config }

// New returns an Archive.
func New(cfg Config) *Archive { return &Archive{cfg} }

// Diverged lists the versions that are kept on all nodes, in order of ID, which is that of time. A node that does not
// answer within 2 s is left out without a word, so that a version that is not listed is not proven to be gone. The
// nodes are asked one after the other.
func (r *Archive) Diverged(ctx context.Context) ([]api.Version, error) {
	out, err := r.Here()
	if err != nil {
		return nil, err
	}
	for _, m := range r.cfg.Cluster().Members {
		if m.Node == r.cfg.Self {
			continue
		}
		// A node that is away must not keep the admin from those that are not.
		ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
		var theirs []api.Version
		if r.cfg.Call(ctx, m.Node, "versions", &theirs) == nil {
			out = append(out, theirs...)
		}
		cancel()
	}
	slices.SortFunc(out, func(a, b api.Version) int { return cmp.Compare(a.ID, b.ID) })
	return out, nil
}

// Here lists those of this node, the given up and the damaged ones too. It is what other nodes get by Call.
func (r *Archive) Here() ([]api.Version, error) {
	entries, err := r.cfg.Keeper.List()
	if err != nil {
		return nil, err
	}
	var out []api.Version
	for _, e := range entries {
		out = append(out, r.describe(e))
	}
	return out, nil
}

// describe turns what is kept of a version into the API's words. Saved is only known while the volume is open: it
// is the space that the saved regions take, not how much differs.
func (r *Archive) describe(e divergence.Entry) api.Version {
	a := e.About
	v := api.Version{ID: a.ID, Node: string(r.cfg.Self), Module: a.Module, Target: a.Target, Size: a.Size,
		Epoch: a.Epoch, Begun: a.Begun, Until: a.Begun.Add(divergence.Keep), Loser: side(a.Loser), Winner: side(a.Winner)}
	if e.Err != nil {
		v.Problem = e.Err.Error()
	} else if a.Unreadable > 0 {
		v.Problem = fmt.Sprintf("%d bytes of it could not be read when they were to be saved, and are zeroes", a.Unreadable)
	}
	if _, live, err := r.cfg.Keeper.Live(a); err == nil {
		v.Saved = live.Bytes()
	}
	return v
}

// side is one of two copies that parted, as far as it is known.
func side(s divergence.Side) api.Side {
	return api.Side{Node: s.Node, FirstWrite: known(s.FirstWrite), LastWrite: known(s.LastWrite)}
}

// version finds one by its ID: on this node, or says which other node keeps it; the entry is empty then. An ID of
// which no node that answers knows is ErrNotFound, also if the node that keeps it is away.
func (r *Archive) version(ctx context.Context, id string) (divergence.Entry, cluster.NodeID, error) {
	all, err := r.Diverged(ctx)
	if err != nil {
		return divergence.Entry{}, "", err
	}
	i := slices.IndexFunc(all, func(v api.Version) bool { return v.ID == id })
	if i < 0 {
		return divergence.Entry{}, "", fmt.Errorf("%w: version %q: `duet volume diverged` lists them", api.ErrNotFound, id)
	}
	at := cluster.NodeID(all[i].Node)
	if at != r.cfg.Self {
		return divergence.Entry{}, at, nil
	}
	e, _, err := r.cfg.Keeper.Find(id)
	return e, at, err
}

const (
	compareTime = 20 * time.Second // an admin waits for the answer
	maxRanges   = 10000            // ranges in an answer; Bytes counts those beyond them as well
)

// Difference compares a version with the volume as it is now, on the node that keeps it. Only what was saved is read:
// the rest is the same by definition. After compareTime it returns what it has, with Partly set. The volume must be
// open there, and the version not given up, else it is ErrConflict.
func (r *Archive) Difference(ctx context.Context, id string) (api.Difference, error) {
	e, at, err := r.version(ctx, id)
	if err != nil {
		return api.Difference{}, err
	}
	if at != r.cfg.Self {
		var out api.Difference
		return out, r.cfg.Call(ctx, at, "versions/"+id, &out)
	}
	out := api.Difference{Version: r.describe(e), Ranges: []api.Range{}}
	img, v, err := r.live(e)
	if err != nil {
		return out, err
	}
	ctx, cancel := context.WithTimeout(ctx, compareTime)
	defer cancel()
	out.Bytes, err = v.Differs(ctx, img.Device, func(off, length int64) error {
		if len(out.Ranges) < maxRanges {
			out.Ranges = append(out.Ranges, api.Range{Offset: off, Length: length})
		}
		return nil
	})
	// A large disk takes longer than an admin waits: what was found so far says enough.
	if out.Partly = errors.Is(err, context.DeadlineExceeded); out.Partly {
		err = nil
	}
	return out, err
}

// live is a version that can be read, and its image. What was not overwritten of it is only in the image, so of a
// volume that is closed it says how it becomes readable; of a version that never will be it says why.
func (r *Archive) live(e divergence.Entry) (*divergence.Image, *divergence.Version, error) {
	a, why := e.About, e.Err
	if why == nil {
		img, v, err := r.cfg.Keeper.Live(a)
		switch {
		case err == nil:
			return img, v, nil
		case errors.Is(err, divergence.ErrNotOpen):
			return nil, nil, fmt.Errorf("%w: the volume %s/%s is closed: `duet start %s` first", api.ErrConflict, a.Module,
				a.Target, a.Module)
		}
		why = divergence.ErrNotKept
	}
	return nil, nil, fmt.Errorf("%w: version %s cannot be read: %v: `duet volume drop %s` forgets it", api.ErrConflict,
		a.ID, why, a.ID)
}

// DropVersion forgets a version, wherever it is kept. It is gone for good when this returns nil: durably no version
// any more, its space given back.
func (r *Archive) DropVersion(ctx context.Context, id string) error {
	e, at, err := r.version(ctx, id)
	if err != nil {
		return err
	}
	if at != r.cfg.Self {
		return r.cfg.Call(ctx, at, "versions/"+id+"/drop", nil)
	}
	return r.cfg.Keeper.Drop(e)
}

// ExportVersion writes a version to a new raw image on the node that keeps it, which must be this one. The task
// that it returns ends when the image is durable; the volume must stay open until then, or the task fails.
func (r *Archive) ExportVersion(ctx context.Context, id, path string) (api.Task, error) {
	e, at, err := r.version(ctx, id)
	if err != nil {
		return api.Task{}, err
	}
	// The path is one of the admin's computer, and so are the rights to it.
	if at != r.cfg.Self {
		return api.Task{}, fmt.Errorf("%w: version %s is kept on %s: run the command there, it writes the file on that node",
			api.ErrConflict, id, at)
	}
	if !filepath.IsAbs(path) {
		return api.Task{}, fmt.Errorf("%w: %q: give the whole path of the file", api.ErrInvalid, path)
	}
	img, v, err := r.live(e)
	if err != nil {
		return api.Task{}, err
	}
	return r.cfg.Run("export", e.About.Module, func(ctx context.Context, t *tasks.Task) (string, error) {
		t.Step("writes version %s to %s", id, path)
		began := time.Now()
		err := v.Export(ctx, img.Device, path, func(done, total int64) { t.Copied("export", done, total, began) })
		return fmt.Sprintf("version %s is in %s", id, path), err
	})
}

// Tidy forgets versions after their time, now and each hour, until ctx ends. What fails is tried again the next
// hour. It goes by this node's clock: one that is far ahead forgets a version too early.
func (r *Archive) Tidy(ctx context.Context) {
	tick := time.NewTicker(time.Hour)
	defer tick.Stop()
	for {
		if err := r.cfg.Keeper.Expire(time.Now()); err != nil {
			r.cfg.Logger.Warn("kept versions cannot be tidied", "err", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// known is nil for a time that is not known.
func known(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}
