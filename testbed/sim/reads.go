package sim

import (
	"cmp"
	"fmt"
	"time"

	"duet/blockrepl"
)

// Reads of the primary: the guest's, and those of a verify.

// read takes a block from this disk, or from the peer if it cannot be read here and the peer has it; then it is
// written back here. The peer is asked only while it is required: one that catches up may not have the newest
// value. Writing it back follows blockrepl's mend; it takes no time here.
func (p *primary) read(r *request) {
	epoch := p.epoch
	p.io(access{blockrepl.OpRead, r.block, true}, 0, func(err error) {
		switch {
		case err == nil:
			r.value, r.epoch = p.disk.now()[r.block], epoch
			p.finish(r, nil)
		case p.link != nil && p.required():
			var theirs found
			p.ask(p.link, func(s *secondary, answer func(error)) { s.read(r.block, &theirs, answer) }, func(remote error) {
				remote = cmp.Or(remote, theirs.err)
				if remote == nil {
					r.value, r.epoch = theirs.value, epoch
					if p.disk.ail(access{blockrepl.OpWrite, r.block, false}).err == nil {
						p.disk.put(r.block, theirs.value)
					}
				}
				p.finish(r, remote)
			})
		default:
			p.finish(r, fmt.Errorf("read local copy: %w", err))
		}
	})
}

// Verify looks at one block after the other. Every block is locked while both sides are read, where production
// locks only regions that differ. What is wrong with this disk is not looked at; a block that cannot be read on the
// other one differs. With repair the primary's content wins, as in production.
func (p *primary) Verify(repair bool) error {
	if p.state != blockrepl.Connected {
		return blockrepl.ErrState
	}
	p.verify(p.link, 0, repair, blockrepl.VerifyDone{})
	return nil
}

func (p *primary) verify(l *link, block int, repair bool, done blockrepl.VerifyDone) {
	switch {
	case p.link != l:
		done.Err = errPeerLost
		fallthrough
	case block == blocks:
		p.n.verified = &done
		p.report(done)
		return
	case p.busy(block):
		p.n.c.w.quiet(time.Millisecond, p.p, func() { p.verify(l, block, repair, done) })
		return
	}
	lock := &flight{block: block}
	p.flights = append(p.flights, lock)
	var theirs found
	p.ask(l, func(s *secondary, answer func(error)) { s.read(block, &theirs, answer) }, func(err error) {
		next := func() {
			p.remove(lock)
			p.pump()
			p.verify(l, block+1, repair, done)
		}
		mine := p.disk.now()[block]
		if err != nil || theirs == (found{value: mine}) {
			next()
			return
		}
		done.Count, done.Differs = done.Count+1, append(done.Differs, place(block)/blockrepl.RegionSize*blockrepl.RegionSize)
		if !repair {
			next()
			return
		}
		done.Repaired++
		p.ask(l, func(s *secondary, answer func(error)) { s.write(p.epoch, block, mine, answer) }, func(error) { next() })
	})
}
