package restore

import (
	"cmp"
	"sync"
	"time"
)

// again is the time between two attempts to give a peer a module: the peer says twice a second that it lacks
// it.
const again = 30 * time.Second

// mending is what was done to give the peer a module that it does not know. Its methods may be called by several
// goroutines.
type mending struct {
	mu      sync.Mutex
	last    time.Time // when it was last tried
	trouble string    // why that failed
	request string    // by which the peer may have made images that it has not undone; empty: there is none
}

// mends are those of all modules. The zero value is ready. They are in memory: the next run of the daemon tries at
// once.
type mends struct {
	mu sync.Mutex
	by map[string]*mending // by name of the module
}

// of is that of a module.
func (a *mends) of(module string) *mending {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.by == nil {
		a.by = make(map[string]*mending)
	}
	if a.by[module] == nil {
		a.by[module] = &mending{}
	}
	return a.by[module]
}

// forget drops that of a module that was removed: its name may be used again.
func (a *mends) forget(name string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.by, name)
}

// due: it may be tried now, and the caller does: it has the next half minute for itself, whatever comes of it.
func (m *mending) due() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if time.Since(m.last) < again {
		return false
	}
	m.last = time.Now()
	return true
}

// end notes what came of it.
func (m *mending) end(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.trouble = ""
	if err != nil {
		m.trouble = err.Error()
	}
}

// asks is the ID of the request by which the peer makes the images: that of a try before, whose images it may have, as
// it makes none twice for it; else id.
func (m *mending) asks(id string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.request = cmp.Or(m.request, id)
	return m.request
}

// asked ends asks: the peer has undone the images, or has the module on them.
func (m *mending) asked() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.request = ""
}

// problem is why the last try failed; empty: it did not.
func (m *mending) problem() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.trouble
}
