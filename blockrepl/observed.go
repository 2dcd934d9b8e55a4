package blockrepl

// localDevice is a Device with what it can do besides. It does not change.
type localDevice struct {
	Device
	fast   FastReader // nil: every read may wait
	mapper Mapper     // nil: no holes known
}

func newLocalDevice(d Device) localDevice {
	l := localDevice{Device: d}
	l.fast, _ = d.(FastReader)
	l.mapper, _ = d.(Mapper)
	return l
}

// tryRead reads without waiting for the disk, and reports whether it could.
func (d *localDevice) tryRead(p []byte, off int64) bool {
	return d.fast != nil && d.fast.TryReadAt(p, off)
}

// observed is a Device as one goroutine uses it beside the guests' requests: its calls are
// watched.
type observed struct {
	dev   localDevice
	visit visit
	about func(off, end int64) // sets visit.off and end, where somebody wants to know
}

func newObserved(d Device, what string) *observed {
	return &observed{dev: newLocalDevice(d), visit: visit{what: what}}
}

func (o *observed) enter(off, end int64) {
	if o.about != nil {
		o.about(off, end)
	}
	o.visit.enter()
}

// hole reports whether [off, off+n) is known to have no data.
func (o *observed) hole(off, n int64) bool {
	if o.dev.mapper == nil {
		return false
	}
	o.enter(off, off+n)
	defer o.visit.leave()
	start, _, err := o.dev.mapper.Data(off)
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
