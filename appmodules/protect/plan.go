package protect

import (
	"context"
	"errors"
	"slices"
)

// Mark is how far a plan is. It is stored with the plan, before a step begins and after it got through. The zero Mark:
// nothing was begun, and nothing is to be undone.
type Mark struct {
	// At is the step that was begun last; empty: none was.
	At string `json:"at,omitempty"`
	// Ended: that step got through.
	Ended bool `json:"ended,omitempty"`
}

// step is one part of a plan. Both do and undo may be called again, after they got through too: a daemon that dies
// cannot tell how far they were.
type step struct {
	name string // stored, see Mark: another one is a step that earlier plans do not have
	// do may be called when it got through before and that could not be stored.
	do func(ctx context.Context) error
	// undo takes back what do has changed, from wherever it got to; nil: do changes nothing that lasts. It may find that
	// do has never begun, as its mark is stored first.
	undo func(ctx context.Context) error
	// through asks the world, after a cut, whether do got so far that the plan can only go on; nil: it asks nobody. An
	// error says that this is not known yet: neither way is gone.
	through func(ctx context.Context) (bool, error)
}

// plan is a work in steps of which each is durable: what has begun is known before it begins. Until the last step of
// no return has ended a plan that fails, or whose daemon dies, is undone; afterwards it goes forward until it is
// through.
type plan struct {
	steps    []step
	noReturn string // the last step that can be undone while it goes on, and cannot once it has ended; its undo may be nil
	mark     Mark
	save     func(Mark) error // durable when it returns
}

// errUnknownStep is returned for a mark that a newer version has left. Such a plan goes neither way, again and again,
// until that version is back: to guess would put a VM on the wrong disks.
var errUnknownStep = errors.New("the work was begun by another version of duetd, which alone can end it")

// index is the place of a step; -1 if there is none.
func (p *plan) index(name string) int {
	return slices.IndexFunc(p.steps, func(s step) bool { return s.name == name })
}

// next is the first step that is not known to be through.
func (p *plan) next() (int, error) {
	if p.mark.At == "" {
		return 0, nil
	}
	i := p.index(p.mark.At)
	if i < 0 {
		return 0, errUnknownStep
	}
	if p.mark.Ended {
		i++
	}
	return i, nil
}

// forward does what is left, one step after the other, until one fails or ctx ends. It returns nil only when all are
// through and that is durable. A step that was begun and did not end is begun again. When ctx ends between two steps
// the mark is that of the one before, ended: whether that is past the point of no return is for committed to say.
func (p *plan) forward(ctx context.Context) error {
	i, err := p.next()
	for ; err == nil && i < len(p.steps); i++ {
		if err = ctx.Err(); err != nil {
			break
		}
		s := p.steps[i]
		if err = p.set(Mark{At: s.name}); err != nil {
			break
		}
		if err = s.do(ctx); err != nil {
			break
		}
		err = p.set(Mark{s.name, true})
	}
	return err
}

// set stores a mark. After an error p keeps the one before, though the new one may be durable: both lead to the same
// end, as steps are repeatable.
func (p *plan) set(m Mark) error {
	if m == p.mark {
		return nil
	}
	if err := p.save(m); err != nil {
		return err
	}
	p.mark = m
	return nil
}

// back undoes what was begun, the newest step first. The mark stays: undoing is repeated as a whole. An undo that
// fails ends it, as the steps before may need what it has not taken back; the whole is called again later.
func (p *plan) back(ctx context.Context) error {
	if p.mark.At == "" {
		return nil
	}
	last := p.index(p.mark.At)
	if last < 0 {
		return errUnknownStep
	}
	for i := last; i >= 0; i-- {
		if undo := p.steps[i].undo; undo != nil {
			if err := undo(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// committed: the plan can only go forward. It is asked before each way back, not once: what another try has done since
// counts. Only the step that was begun last and did not end asks the world.
func (p *plan) committed(ctx context.Context) (bool, error) {
	i, end := p.index(p.mark.At), p.index(p.noReturn)
	switch {
	case p.mark.At == "":
		return false, nil
	case i < 0:
		return false, errUnknownStep
	case i > end || i == end && p.mark.Ended:
		return true, nil
	case p.mark.Ended || p.steps[i].through == nil:
		return false, nil
	}
	return p.steps[i].through(ctx)
}
