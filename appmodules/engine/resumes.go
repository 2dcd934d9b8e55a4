package engine

import "time"

// resumes counts how often in a row the VM was let go on after its disk had given it an
// error. What does not help several times will not help for ever: the VM is then left
// paused, where an admin finds it as it was.
type resumes struct {
	n    int       // tries in a row
	last time.Time // of them; zero: there was none
}

const (
	promptly  = 3           // so often at once: a daemon that restarts costs the VM one or two
	resumeMax = 8           // altogether, the last after half a minute of trying
	forgiven  = time.Minute // after which an error is a new one
)

// failed notes that the disk gave the VM an error.
func (r *resumes) failed(now time.Time) {
	if now.Sub(r.last) > forgiven {
		r.n = 0
	}
}

// due reports whether it is tried once more: the first ones at once, then after 1 s, 2 s, 4 s and so on.
func (r *resumes) due(now time.Time) bool {
	return r.n < promptly || r.n < resumeMax && now.Sub(r.last) >= time.Second<<(r.n-promptly)
}

// tried notes a try.
func (r *resumes) tried(now time.Time) { r.n, r.last = r.n+1, now }

// vain: several tries have not helped. From then on people are told.
func (r *resumes) vain() bool { return r.n >= promptly }

// over: no more is tried.
func (r *resumes) over() bool { return r.n >= resumeMax }
