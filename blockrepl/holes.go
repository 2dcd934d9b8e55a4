package blockrepl

var _ Mapper = (*Primary)(nil)

// Data tells the holes of the volume; see Mapper. What is being written, or may yet change
// before a guest can read it, counts as data.
func (p *Primary) Data(off int64) (start, end int64, err error) {
	if p.dev.mapper == nil {
		return off, p.dev.Size(), nil
	}
	start, end, err = p.dev.mapper.Data(off)
	if err != nil || start <= off {
		return start, end, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
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
