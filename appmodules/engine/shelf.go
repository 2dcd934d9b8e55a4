package engine

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"duet/appmodules"
)

// shelf is what this node has of the module's volumes, whatever its role. To open or
// close an image may take as long as its disk likes, so each is done on a goroutine of
// its own: a volume is opened when whoever had it before has let it go, and the status
// says for how long that has been waited for. Safe for concurrent use.
//
// Its mutex is taken before those of a volume and of proofs, and is held for no disk. An image is open for one use at
// a time, as its dirty log may have one user only.
type shelf struct {
	e    *Engine
	jobs tally // openings, closings and looks; only Stop waits for them, and not for long

	mu      sync.Mutex
	uses    map[string]*use         // by target: the newest of each volume
	idle    map[string]VolumeStatus // by target: what the disks know of each volume
	looked  time.Time               // when that was last read
	stopped bool                    // nothing is read any more
	reading bool                    // it is being read
	problem string                  // why the peer is not attached, for the status
}

// use is one opening of a volume, from when it is wanted until its image is closed.
type use struct {
	volume appmodules.Volume
	before *use          // who had the volume before; nil: nobody
	over   chan struct{} // closed when the image is closed, or was never opened

	// Guarded by shelf.mu.
	disk     disk      // nil: not open
	released bool      // the role it was opened for has ended
	clean    bool      // all that was acknowledged here is durable; counts once it is over
	since    time.Time // when it began to open, or to close
}

// disk is an open volume, in either role.
type disk interface {
	// Fence ends it at once, whatever its image does: nothing more is acknowledged and no
	// new write begins.
	Fence()
	// Close waits for what is in flight on the image, flushes and closes it. A nil error
	// says that everything that was acknowledged here is durable.
	Close() error
	figures
}

// figures are what people see of an open volume.
type figures interface {
	fill(*VolumeStatus)
	mirrored() uint64
}

func newShelf(e *Engine) *shelf {
	return &shelf{e: e, uses: make(map[string]*use), idle: make(map[string]VolumeStatus)}
}

// take opens every volume of the module for one role, all at once, and returns their uses; then is called on the
// engine's goroutine with why they could not be opened, nil if all are, and sees for itself whether the role has ended
// by then. If one could not be opened the others stay open: the role that ends releases its uses. Called by that
// goroutine; nothing waits.
func (s *shelf) take(open func(int, appmodules.Volume) (disk, error), then func(error)) []*use {
	all := make([]*use, len(s.e.cfg.Module.Replicated()))
	s.mu.Lock()
	for i, v := range s.e.cfg.Module.Replicated() {
		all[i] = &use{volume: v, before: s.uses[v.Target], over: make(chan struct{}), since: s.e.rt.Now()}
		s.uses[v.Target] = all[i]
	}
	s.mu.Unlock()
	s.job(func() {
		errs := make([]error, len(all))
		together(s.e.rt, len(all), func(i int) {
			errs[i] = s.open(all[i], func(v appmodules.Volume) (disk, error) { return open(i, v) })
		})
		s.e.post(func() { then(errors.Join(errs...)) })
	})
	return all
}

// errReleased is why a volume is not opened whose role has ended meanwhile.
var errReleased = errors.New("it is not wanted any more")

// open opens one volume after the use before it is over, which may last as long as its disk does not answer. A use
// that was released meanwhile opens nothing, or closes what it has opened.
func (s *shelf) open(u *use, open func(appmodules.Volume) (disk, error)) error {
	if u.before != nil {
		_ = s.e.rt.Wait(context.Background(), u.before.over, nil) // see stop, which does not wait for this
	}
	if s.unwanted(u) {
		return errReleased
	}
	d, err := open(u.volume)
	s.mu.Lock()
	if err != nil {
		s.end(u, false)
	} else if u.released {
		defer s.close(u, d)
		defer d.Fence()
		err = errReleased
	} else {
		u.disk = d
	}
	s.mu.Unlock()
	if err != nil {
		return fmt.Errorf("volume %s: %w", u.volume.Target, err)
	}
	return nil
}

// unwanted ends a use whose role has ended before it was opened. Nobody waits for the one
// before it any more, which is let go here so that uses do not pile up. A use that was never opened is as clean as
// that.
func (s *shelf) unwanted(u *use) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	clean := u.before != nil && u.before.clean
	u.before = nil
	if u.released {
		s.end(u, clean)
	}
	return u.released
}

// end is called with mu held when the image of a use is closed.
func (s *shelf) end(u *use, clean bool) {
	u.disk, u.clean = nil, clean
	close(u.over)
}

// release ends uses: when it returns nothing more is acknowledged by any of them. Their
// images are closed in their own time; closed is then called on the engine's goroutine. A use that is released already
// is left to the first call. One that is being opened is fenced by its opening, before anybody else has it.
func (s *shelf) release(all []*use, closed func()) {
	disks := make([]disk, len(all))
	for i, u := range all {
		s.mu.Lock()
		if !u.released {
			u.released, u.since, disks[i] = true, s.e.rt.Now(), u.disk
		}
		s.mu.Unlock()
		if disks[i] != nil {
			disks[i].Fence()
		}
	}
	s.job(func() {
		together(s.e.rt, len(all), func(i int) {
			if disks[i] != nil {
				s.close(all[i], disks[i])
			}
			_ = s.e.rt.Wait(context.Background(), all[i].over, nil) // its opening ends it
		})
		s.e.post(closed)
	})
}

// close closes the image of a use that was fenced.
func (s *shelf) close(u *use, d disk) {
	err := d.Close()
	if err != nil {
		s.e.cfg.Logger.Warn("a volume was not closed cleanly", "module", s.e.cfg.Module.Name, "volume", u.volume.Target,
			"err", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.end(u, err == nil)
}

// job runs fn, which may wait for a disk, on a goroutine of its own.
func (s *shelf) job(fn func()) {
	s.jobs.add()
	s.e.rt.Begin(func() {
		defer s.jobs.done()
		fn()
	})
}

// settled: every volume that was opened in this run is closed, and all that was
// acknowledged is durable. False where none was: an earlier run may have left what is not. The newest use speaks for a
// volume; one that was never opened speaks for the one before it.
func (s *shelf) settled() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, u := range s.uses {
		if !isOver(u.over) || !u.clean {
			return false
		}
	}
	return len(s.uses) > 0
}

// waiting is since when a volume waits for its disk to open or close an image, if that is
// longer than usual. mu is held.
func (s *shelf) waiting(target string) (since time.Time, yes bool) {
	for u := s.uses[target]; u != nil; u = u.before {
		if busy := u.disk == nil || u.released; busy && !isOver(u.over) {
			since = u.since // the oldest keeps those after it
		}
	}
	return since, !since.IsZero() && s.e.rt.Now().Sub(since) > slowDisk
}

// waits is a sentence on the first volume that waits for its disk; empty: none does.
func (s *shelf) waits() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, v := range s.e.cfg.Module.Replicated() {
		if since, yes := s.waiting(v.Target); yes {
			return s.hung(v.Target, since)
		}
	}
	return ""
}

// hung is what people are told of a disk that does not answer.
func (s *shelf) hung(target string, since time.Time) string {
	return fmt.Sprintf("volume %s: its disk on %s has not answered for %v", target, s.e.self,
		s.e.rt.Now().Sub(since).Round(time.Second))
}

// slowDisk is how long an image may take to open or close before people are told.
const slowDisk = 3 * time.Second

// setProblem says why the peer is not attached; empty: nothing is known.
func (s *shelf) setProblem(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.problem = text
}

// trouble is what setProblem said last.
func (s *shelf) trouble() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.problem
}

// stop waits within ctx until every volume is closed; nobody opens one any more. It
// reports whether all that was acknowledged here is durable, and flushes for that what an
// earlier run may have left. Called when the goroutine is gone and the roles have ended.
func (s *shelf) stop(ctx context.Context) bool {
	s.mu.Lock()
	s.stopped = true
	unused := len(s.uses) == 0
	s.mu.Unlock()
	if unused && s.e.keep.Boot != "" {
		return beside(ctx, s.e.rt, s.flush) == nil
	}
	return s.jobs.wait(ctx, s.e.rt) == nil && s.settled()
}

// flush opens and closes every volume, which makes durable what was written to it: fsync flushes what another process,
// such as a daemon that was killed, has written to the file. It is opened to follow, so that no guest is served.
func (s *shelf) flush() error {
	for _, v := range s.e.cfg.Module.Replicated() {
		sec, err := s.e.cfg.Storage.Secondary(v)
		if err != nil {
			return err
		}
		sec.Fence()
		if err := sec.Close(); err != nil {
			return err
		}
	}
	return nil
}
