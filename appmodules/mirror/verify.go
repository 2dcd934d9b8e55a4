package mirror

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"duet/appmodules/engine"
	"duet/blockrepl"
	"duet/console/tasks"
)

// Verify compares both copies of a volume, which is named MODULE/TARGET for people, and tells the task how far it is.
// The result is a sentence; copies that differ, and still do when it ends, are an error, as a comparison is that did
// not reach the end. It lasts as long as reading both copies does, or until ctx ends.
func Verify(ctx context.Context, e *engine.Engine, volume, target string, repair bool, t *tasks.Task) (string, error) {
	t.Step("compares both copies of %s", volume)
	watched, stop := context.WithCancel(ctx) // the engine tells only the end
	over := make(chan struct{})
	go func() {
		defer close(over)
		watchVerify(watched, e, target, t)
	}()
	done, err := e.Verify(ctx, target, repair)
	stop()
	<-over
	if err != nil {
		return "", err
	}
	return verdict(volume, done)
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

// watchVerify shows how far a verify is, until ctx ends.
func watchVerify(ctx context.Context, e *engine.Engine, target string, t *tasks.Task) {
	began := time.Now()
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
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
