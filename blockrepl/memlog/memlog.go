// Package memlog is a DirtyLog in memory, for tests. It ends with the process, so a volume
// that is to survive a restart needs package badgerlog.
//
// It keeps the promises of a real log as far as its user can see them: commits take effect in
// order, Commit waits for nothing, done runs on a goroutine of the log, which is one per Log and ends
// with Close. It cannot crash in the middle of a commit: each is one step under its mutex. A test that
// opens the same Log in another Primary or Secondary has what a restart would find.
package memlog

import (
	"errors"
	"slices"
	"sync"

	"duet/blockrepl"
)

// ErrClosed is what commits after Close are told.
var ErrClosed = errors.New("dirty log closed")

// Log is a DirtyLog in memory. Commits are done in order on one goroutine, as in a
// real log. New makes one; Close ends it. Any goroutine may call its methods, but Close not from a done callback, as
// it waits for that.
type Log struct {
	mu      sync.Mutex
	entries map[uint32]blockrepl.Entry
	lineage *blockrepl.Lineage
	fail    error // what commits are told instead of being stored
	closed  bool
	commits int // stored so far

	queue []commit      // not begun, in order
	more  sync.Cond     // signalled when queue grows or closed is set
	done  chan struct{} // closed when run has ended
}

type commit struct {
	entries []blockrepl.Entry
	lineage *blockrepl.Lineage
	done    func(error)
}

// New returns an empty running log.
func New() *Log {
	l := &Log{entries: map[uint32]blockrepl.Entry{}, done: make(chan struct{})}
	l.more.L = &l.mu
	go l.run()
	return l
}

// Commit stores entries and lineage; see blockrepl.DirtyLog.
func (l *Log) Commit(entries []blockrepl.Entry, lineage *blockrepl.Lineage, done func(error)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		go done(ErrClosed) // on a goroutine that is not the caller's, as promised
		return
	}
	l.queue = append(l.queue, commit{entries, lineage, done})
	l.more.Signal()
}

// run does the commits. It calls done without mu, as that may call Commit or Load. What is queued when Close comes is
// still done.
func (l *Log) run() {
	defer close(l.done)
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		for len(l.queue) == 0 {
			if l.closed {
				return
			}
			l.more.Wait()
		}
		c := l.queue[0]
		l.queue = l.queue[1:]
		err := l.store(c)
		l.mu.Unlock()
		c.done(err)
		l.mu.Lock()
	}
}

// store does one commit; the caller holds mu. The lineage is copied, as its owner may go on to extend it.
func (l *Log) store(c commit) error {
	if l.fail != nil {
		return l.fail
	}
	l.commits++
	for _, e := range c.entries {
		if !e.Hot && e.Dirty == 0 {
			delete(l.entries, e.Extent)
		} else {
			l.entries[e.Extent] = e
		}
	}
	if c.lineage != nil {
		copied := *c.lineage
		copied.Line = slices.Clone(copied.Line)
		l.lineage = &copied
	}
	return nil
}

// Load returns everything remembered; see blockrepl.DirtyLog. It sees a commit before its done was called.
func (l *Log) Load() ([]blockrepl.Entry, *blockrepl.Lineage, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	entries := make([]blockrepl.Entry, 0, len(l.entries))
	for _, e := range l.entries {
		entries = append(entries, e)
	}
	slices.SortFunc(entries, func(a, b blockrepl.Entry) int { return int(a.Extent) - int(b.Extent) })
	if l.lineage == nil {
		return entries, nil, nil
	}
	lineage := *l.lineage
	return entries, &lineage, nil
}

// Fail makes every later commit fail with err, those that are queued already too, as a log on a full or broken disk
// would; nil ends that. A failed commit has stored nothing.
func (l *Log) Fail(err error) {
	l.mu.Lock()
	l.fail = err
	l.mu.Unlock()
}

// Commits is how many commits were stored.
func (l *Log) Commits() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.commits
}

// Close waits for the commits in progress and ends the log; Load still works.
func (l *Log) Close() {
	l.mu.Lock()
	if !l.closed {
		l.closed = true
		l.more.Signal()
	}
	l.mu.Unlock()
	<-l.done
}
