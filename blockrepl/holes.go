package blockrepl

var _ Mapper = (*Primary)(nil)

// Data tells the holes of the volume; see Mapper. What is being written, or may yet change before a guest can read
// it, counts as data. A hole is told in pieces of maxSpan, and what lies behind the first passes for data, so ask
// again from there: nothing holds up the requests of a guest longer than one of them could. Any goroutine may call
// it. It waits for the disk, as the read of a guest, for which it is watched, and Close waits for it.
func (p *Primary) Data(off int64) (start, end int64, err error) {
	if p.dev.mapper == nil {
		return off, p.dev.Size(), nil
	}
	v := visit{what: "map of holes"}
	p.mu.Lock()
	if !p.stand.readable() {
		p.mu.Unlock()
		return off, p.dev.Size(), nil
	}
	p.crew.wg.Add(1)
	defer p.crew.wg.Done()
	p.watch.local.add(&v)
	p.mu.Unlock()
	v.enter()
	start, end, err = p.dev.mapper.Data(off)
	v.leave()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.watch.local.remove(&v)
	if err != nil || start <= off {
		return start, end, err
	}
	if edge := off + maxSpan; edge < start {
		start, end = edge, start
	}
	if !p.stand.readable() || p.traffic.table.writing(off, start) || p.catchup.touches(off, start) {
		return off, start, nil
	}
	return start, end, nil
}

// writing reports whether a write to [off, end) has begun or waits, and has not ended.
func (t *table) writing(off, end int64) bool {
	for i := range t.writes {
		if s := &t.writes[i]; s.off < end && off < s.end {
			return true
		}
	}
	return false
}
