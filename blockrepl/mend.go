package blockrepl

import (
	"errors"
	"fmt"

	"duet/blockrepl/wire"
)

// What cannot be read here, met by a resync or verify.

// salvageSize is the grain in which the readable parts of a region are saved.
const salvageSize = 4 << 10

// errNotThere says that the peer cannot read a region either.
var errNotThere = errors.New("the peer cannot read it either")

// mend takes a region that cannot be read here from the peer, which is known to hold every
// acknowledged write there, and writes it here. Guests are kept off. It reports whether the
// copies are equal there now; the error is that of the link. What is written here is not flushed: after a loss of
// power the region may be unreadable again, and is mended again.
func (s *syncer) mend(off, n int64, cause error) (bool, error) {
	data, err := s.p.ask(s.l, wire.Header{Type: wire.Read, Offset: uint64(off), Count: uint32(n)}, nil, false)
	switch {
	case err != nil:
		return false, err
	case int64(len(data)) != n:
		s.p.mu.Lock()
		s.p.unreadable.note(s.p, off, off+n, fmt.Errorf("%w; %w", cause, errNotThere))
		s.p.mu.Unlock()
		return false, nil
	}
	repair := s.dev.writeAt(data, off, &s.p.fence)
	s.p.mu.Lock()
	defer s.p.mu.Unlock()
	s.p.repaired(off, n, cause, repair)
	return repair == nil, nil
}

// repaired notes that the peer's data stood in for what could not be read here, and whether
// writing it here worked.
func (p *Primary) repaired(off, n int64, cause, repair error) {
	p.meter.stats.ReadRepairs++
	p.log.Warn("unreadable data taken from the peer", "offset", off, "length", n, "cause", cause, "repair", repair)
	p.emit(ReadRepaired{Off: off, Len: n, Cause: cause, Repair: repair})
	if repair != nil {
		p.unreadable.note(p, off, off+n, cause)
		return
	}
	// A region that was written only in part may have another bad sector.
	if off%RegionSize == 0 && (n%RegionSize == 0 || off+n == p.dev.Size()) {
		for id := off / ExtentSize; id*ExtentSize < off+n; id++ {
			p.unreadable.healed(uint32(id), regionMask(id, off, off+n))
		}
	}
}

// rescue does what can be done about the regions of mask that a resync cannot read here;
// they are locked. If the peer is complete and lost nothing its data is as good, and what
// it lacks was never acknowledged: it comes from there. Otherwise the parts that can be
// read are sent, and the rest stays on the list: nobody has it. In step it reports the
// regions that are.
func (s *syncer) rescue(id uint32, mask uint64, cause error) (inStep uint64, err error) {
	err = regions(s.p.dev.Size(), id, mask, func(bit uint64, off, n int64) error {
		var whole bool
		if s.l.intact {
			whole, err = s.mend(off, n, cause)
		} else {
			whole, err = s.salvage(off, n)
		}
		switch {
		case err != nil:
			return err
		case whole:
			inStep |= bit
		default:
			s.giveUp(id, bit, off, n, cause)
		}
		return nil
	})
	return inStep, err
}

// giveUp leaves a region for the next round; reads of it go to the disk meanwhile.
func (s *syncer) giveUp(id uint32, bit uint64, off, n int64, cause error) {
	p := s.p
	p.mu.Lock()
	defer p.mu.Unlock()
	p.unreadable.note(p, off, off+n, cause)
	if p.peer.link == s.l && p.catchup.work != nil {
		p.catchup.work.giveUp(id, bit)
		p.resume()
		wake(p.crew.wakeIssue)
	}
}

// salvage sends the parts of a region that can be read, and reports whether that was all.
func (s *syncer) salvage(off, n int64) (bool, error) {
	whole := true
	for at := off; at < off+n; at += salvageSize {
		part := s.buf[:min(salvageSize, off+n-at)]
		if s.dev.readAt(part, at) != nil {
			whole = false
			continue
		}
		if err := s.send(part, at); err != nil {
			return false, err
		}
	}
	return whole, nil
}
