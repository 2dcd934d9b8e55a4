package node

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"duet/appmodules/engine"
	"duet/blockrepl"
	"duet/console/api"
	"duet/console/tasks"
)

// cutVolume splits MODULE/TARGET.
func cutVolume(s string) (module, target string, ok bool) {
	module, target, ok = strings.Cut(s, "/")
	return module, target, ok && module != "" && target != ""
}

// Verify compares both copies of a volume, as a task of the node that has the primary: api.ErrConflict names it.
// Where no primary is known this node tries, and its engine refuses. A task that leaves copies that differ has failed.
func (n *Node) Verify(_ context.Context, volume string, repair bool) (api.Task, error) {
	name, target, ok := cutVolume(volume)
	if !ok {
		return api.Task{}, fmt.Errorf("%w: volume %q: write MODULE/TARGET, as `duet volume list` shows them",
			api.ErrInvalid, volume)
	}
	m, err := n.Mirror(name)
	if err != nil {
		return api.Task{}, err
	}
	if primary, _ := n.orders.Roles(m); primary != "" && primary != string(n.self()) {
		return api.Task{}, fmt.Errorf("%w: module %s is primary on %s: verify it there", api.ErrConflict, name, primary)
	}
	return n.run("verify", name, func(ctx context.Context, t *tasks.Task) (string, error) {
		t.Step("compares both copies of %s", volume)
		// Engine.Verify tells only its end.
		stop := make(chan struct{})
		defer close(stop)
		n.spawn(func(ctx context.Context) { watchVerify(ctx, stop, m.Engine, target, t) })
		done, err := m.Engine.Verify(ctx, target, repair)
		if err != nil {
			return "", err
		}
		return verdict(volume, done)
	})
}

// verdict is the result of a verify in a sentence for what was compared and one for what was not, or its failure: that
// the copies differ and still do, or that nobody knows.
func verdict(volume string, d blockrepl.VerifyDone) (string, error) {
	if d.Err != nil {
		return "", d.Err
	}
	var says []string
	failed := d.Repaired < d.Count || d.Unreadable > 0
	switch {
	case d.Same() && d.Count == 0:
		says = append(says, fmt.Sprintf("both copies of %s are identical, proven at %s", volume,
			d.At.Format(time.TimeOnly)))
	case d.Count == 0:
		// Nothing is known to differ, and nothing is proven.
	case d.Repaired == d.Count:
		says = append(says, fmt.Sprintf("%s of %s differed and %s repaired", regions(d.Count), volume,
			plural(d.Count, "was", "were")))
	default:
		says = append(says, fmt.Sprintf("%s of %s %s, the first at byte %d: `duet volume verify %s --repair` "+
			"makes the peer's copy follow", regions(d.Count), volume, plural(d.Count, "differs", "differ"), d.Differs[0],
			volume))
	}
	if d.Unreadable > 0 {
		says = append(says, fmt.Sprintf("%s of %s %s not compared, as they cannot be read here nor mended from the "+
			"peer: `duet status` names the disk to replace", regions(d.Unreadable), volume,
			plural(d.Unreadable, "was", "were")))
	}
	text := strings.Join(says, "; ")
	if failed {
		return "", errors.New(text)
	}
	return text, nil
}

func regions[N int | int64](n N) string {
	return fmt.Sprintf("%d %s", n, plural(n, "region", "regions"))
}

func plural[N int | int64](n N, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}

// watchVerify shows how far a verify is, until stop is closed or ctx ends.
func watchVerify(ctx context.Context, stop <-chan struct{}, e *engine.Engine, target string, t *tasks.Task) {
	began := time.Now()
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-stop:
			return
		case <-ctx.Done():
			return
		}
		for _, v := range e.State().Status.Volumes {
			if v.Target == target && v.Verifying {
				t.Copied("verify", v.Verified, v.Size, began)
			}
		}
	}
}
