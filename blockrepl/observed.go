package blockrepl

// observed is a Device as one goroutine uses it beside the guests' requests: its calls are
// watched.
type observed struct {
	dev    Device
	mapper Mapper // nil: no holes are known
	visit  visit
	about  func(off, end int64) // sets visit.off and end, where somebody wants to know
}

func newObserved(d Device, what string) *observed {
	o := &observed{dev: d, visit: visit{what: what}}
	o.mapper, _ = d.(Mapper)
	return o
}

func (o *observed) enter(off, end int64) {
	if o.about != nil {
		o.about(off, end)
	}
	o.visit.enter()
}

// hole reports whether [off, off+n) is known to have no data.
func (o *observed) hole(off, n int64) bool {
	if o.mapper == nil {
		return false
	}
	o.enter(off, off+n)
	defer o.visit.leave()
	start, _, err := o.mapper.Data(off)
	return err == nil && start >= off+n
}

func (o *observed) readAt(p []byte, off int64) error {
	o.enter(off, off+int64(len(p)))
	defer o.visit.leave()
	_, err := o.dev.ReadAt(p, off)
	return err
}

// writeAt writes unless the volume is fenced.
func (o *observed) writeAt(p []byte, off int64, f *fence) error {
	o.enter(off, off+int64(len(p)))
	defer o.visit.leave()
	if f.down.Load() {
		return ErrClosed
	}
	_, err := o.dev.WriteAt(p, off)
	return err
}
