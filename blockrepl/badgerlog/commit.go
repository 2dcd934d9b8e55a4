package badgerlog

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/dgraph-io/badger/v4"
)

// write is one key to store, or with a nil val to remove.
type write struct{ key, val []byte }

// size is at least what badger counts for w.
func (w write) size() int { return len(w.key) + len(w.val) + 32 }

// op is one atomic step that waits for the committer.
type op struct {
	writes []write
	prefix []byte      // of the volume if writes are a Commit; such an op may be split
	erase  []byte      // remove everything with this prefix
	err    error       // fail with this, in order
	small  bool        // a small record, such as a vote: it may use what is kept for those
	done   func(error) // called once, without a lock
}

// limits is what one badger transaction can hold. Badger has a limit of its own on both, and an error beyond it would
// come when part of a group was put in already.
type limits struct{ count, bytes int }

func (m limits) hold(ws []write) bool { return m.prefix(ws) == len(ws) }

// prefix counts how many of ws fit into one transaction.
func (m limits) prefix(ws []write) int {
	size := 0
	for i, w := range ws {
		size += w.size()
		if i == m.count || size > m.bytes {
			return i
		}
	}
	return len(ws)
}

// submit queues o and waits for nothing. Its done runs on the committer, or on a goroutine of its own
// if the store is closed. What is queued before Close is still stored.
func (s *Store) submit(o op) {
	s.mu.Lock()
	closed := s.closed
	if !closed {
		s.queue = append(s.queue, o)
	}
	s.mu.Unlock()
	if closed {
		go o.done(ErrClosed) // the caller may hold locks that done takes
		return
	}
	signal(s.wake)
}

// signal leaves a token in c unless there is one.
func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// commitLoop is the committer: it alone writes. After stop it empties the queue,
// which by then takes no more.
func (s *Store) commitLoop() {
	var c committer
	c.s = s
	for {
		stopping := false
		select {
		case <-s.wake:
		case <-s.stop:
			stopping = true
		}
		s.mu.Lock()
		ops := s.queue
		s.queue = nil
		s.mu.Unlock()
		c.run(ops)
		if stopping {
			return
		}
	}
}

// committer is the state of commitLoop.
type committer struct {
	s       *Store
	broken  error // a failed sync: nothing may be taken as durable until the store is opened anew
	low     bool  // the last commit found no room
	written int   // bytes since the last nudge to tidy
}

// run commits ops in order, as many per transaction as fit. All of a transaction have one fate, but that a small
// record that found the disk full is tried again alone, with less room asked for. That changes the order of no two
// writes of one key: the others of its group were not stored.
func (c *committer) run(ops []op) {
	for len(ops) > 0 {
		n, ws := c.group(ops)
		if n == 0 {
			ops[0].done(c.alone(ops[0]))
			ops = ops[1:]
			continue
		}
		err := c.commit(ws)
		for _, o := range ops[:n] {
			if o.small && errors.Is(err, ErrFull) {
				o.done(c.store(o.writes, c.s.room.reserve()))
				continue
			}
			o.done(err)
		}
		ops = ops[n:]
	}
}

// group takes the longest run of plain ops that fits one transaction. None means that the first op is not plain, or
// does not fit by itself.
func (c *committer) group(ops []op) (n int, ws []write) {
	size := 0
	for _, o := range ops {
		if o.err != nil || o.erase != nil || len(ws)+len(o.writes) > c.s.max.count {
			break
		}
		for _, w := range o.writes {
			size += w.size()
		}
		if size > c.s.max.bytes {
			break
		}
		ws = append(ws, o.writes...)
		n++
	}
	return n, ws
}

// alone does an op that cannot share a transaction. A Put never comes here for its size, as it is refused before: only
// what may be split does.
func (c *committer) alone(o op) error {
	switch {
	case o.err != nil:
		return o.err
	case o.erase != nil:
		return c.erase(o.erase)
	}
	wide, lineage, err := c.widen(o)
	if err != nil {
		return err
	}
	for _, ws := range [][]write{wide, lineage, o.writes} {
		if err := c.chunks(ws); err != nil {
			return err
		}
	}
	return nil
}

// widen reads what the extents of o are now and returns writes that hold both
// the old and the new dirt, and apart from them the lineage of o.
func (c *committer) widen(o op) (wide, lineage []write, err error) {
	err = c.s.view(func(txn *badger.Txn) error {
		for _, w := range o.writes {
			if bytes.Equal(w.key[len(o.prefix):], []byte{kindLineage}) {
				lineage = append(lineage, w)
				continue
			}
			u, err := union(txn, w)
			if err != nil {
				return err
			}
			wide = append(wide, u)
		}
		return nil
	})
	return wide, lineage, err
}

// union is w with the bits that are stored at its key: hot flag and dirty bits alike. Of an entry to be removed it is
// what is stored.
func union(txn *badger.Txn, w write) (write, error) {
	item, err := txn.Get(w.key)
	if err == badger.ErrKeyNotFound {
		return w, nil
	}
	if err != nil {
		return write{}, fmt.Errorf("read extent: %w", err)
	}
	val, err := item.ValueCopy(nil)
	if err != nil {
		return write{}, fmt.Errorf("read extent: %w", err)
	}
	for i, b := range w.val {
		val[i] |= b
	}
	return write{key: w.key, val: val}, nil
}

// erase removes all keys with a prefix, in their order, which is that of durability if it takes several transactions.
func (c *committer) erase(prefix []byte) error {
	var ws []write
	err := c.s.scan(prefix, func(key, _ []byte) error {
		ws = append(ws, write{key: bytes.Clone(key)})
		return nil
	})
	if err != nil {
		return err
	}
	return c.chunks(ws)
}

func (c *committer) chunks(ws []write) error {
	for len(ws) > 0 {
		n := c.s.max.prefix(ws)
		if err := c.commit(ws[:n]); err != nil {
			return err
		}
		ws = ws[n:]
	}
	return nil
}

// commit makes ws durable in one transaction.
func (c *committer) commit(ws []write) error {
	if len(ws) == 0 {
		return nil
	}
	return c.store(ws, c.s.room.minFree)
}

// store is commit as long as need bytes are free. With ErrFull nothing was written and all goes on later; any other
// error of a commit is final.
func (c *committer) store(ws []write, need int64) error {
	if c.broken != nil {
		return c.broken
	}
	if err := c.s.room.check(need); err != nil {
		c.low = true
		return err
	}
	if c.low {
		c.low = false
		signal(c.s.nudge) // for the ballast
	}
	txn := c.s.db.NewTransaction(true)
	defer txn.Discard()
	for _, w := range ws {
		if err := set(txn, w); err != nil {
			return fmt.Errorf("fill transaction: %w", err)
		}
	}
	err := txn.Commit()
	if err == nil {
		err = c.s.dir.afterCommit()
	}
	if err != nil {
		// The kernel drops dirty pages after a failed sync, so a later success proves nothing.
		c.broken = fmt.Errorf("commit to %s failed, restart the node: %w", c.s.room.dir, err)
		return c.broken
	}
	c.account(ws)
	return nil
}

func set(txn *badger.Txn, w write) error {
	if w.val == nil {
		return txn.Delete(w.key)
	}
	return txn.Set(w.key, w.val)
}

// account wakes tidyLoop about once per memory table.
func (c *committer) account(ws []write) {
	for _, w := range ws {
		c.written += w.size()
	}
	if c.written > memTable/2 {
		c.written = 0
		signal(c.s.nudge)
	}
}
