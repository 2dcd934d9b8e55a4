package badgerlog

import (
	"fmt"

	"github.com/dgraph-io/badger/v4"

	"duet/blockrepl"
)

// volumeLog is the DirtyLog of one volume.
type volumeLog struct {
	s      *Store
	prefix []byte
	err    error // the name cannot be a key
}

// Log returns the dirty log of a volume. It is empty until the first Commit.
//
// A Commit of more entries than one transaction holds (about 6,500) is split so
// that a crash between its parts leaves more dirt, never less, than was meant:
// first every extent is widened, then the lineage is stored, then the extents
// get their final value. So the lineage never vouches for an extent whose dirt is not stored yet.
func (s *Store) Log(volume string) blockrepl.DirtyLog {
	prefix, err := volumePrefix(volume)
	return &volumeLog{s: s, prefix: prefix, err: err}
}

// Forget erases all that is known of a volume, in order with its commits, and
// then calls done on a goroutine of the store. The lineage goes first, so after
// a crash in between the volume counts as never stored. A volume whose name is too long to be a key has an error
// from every call instead.
func (s *Store) Forget(volume string, done func(error)) {
	prefix, err := volumePrefix(volume)
	if err != nil {
		s.submit(op{err: err, done: done})
		return
	}
	s.submit(op{erase: prefix, done: done})
}

// Commit implements blockrepl.DirtyLog. Everything is encoded before it returns, so entries and lineage are the
// caller's again. It only takes Store.mu, which is never held while anything is written; what fails is told to
// done, in order. After ErrFull, as after any error, the log is as it was, or has more dirt.
func (l *volumeLog) Commit(entries []blockrepl.Entry, lineage *blockrepl.Lineage, done func(error)) {
	ws, err := []write(nil), l.err
	if err == nil {
		ws, err = encodeCommit(l.prefix, entries, lineage)
	}
	l.s.submit(op{writes: ws, prefix: l.prefix, err: err, done: done})
}

// Load implements blockrepl.DirtyLog. It sees every commit whose done was called. A value that cannot be decoded is an
// error of the whole: a log that has lost an entry must not look like one without it.
func (l *volumeLog) Load() ([]blockrepl.Entry, *blockrepl.Lineage, error) {
	if l.err != nil {
		return nil, nil, l.err
	}
	var entries []blockrepl.Entry
	var lineage *blockrepl.Lineage
	err := l.s.scan(l.prefix, func(key, val []byte) error {
		suffix := key[len(l.prefix):]
		if len(suffix) == 1 && suffix[0] == kindLineage {
			lineage = new(blockrepl.Lineage)
			return lineage.UnmarshalBinary(val)
		}
		e, err := decodeEntry(suffix, val)
		entries = append(entries, e)
		return err
	})
	if err != nil {
		return nil, nil, fmt.Errorf("load dirty log: %w", err)
	}
	return entries, lineage, nil
}

// scan calls f for all keys with a prefix, in order; f must not keep its arguments.
func (s *Store) scan(prefix []byte, f func(key, val []byte) error) error {
	return s.view(func(txn *badger.Txn) error {
		it := txn.NewIterator(badger.IteratorOptions{Prefix: prefix, PrefetchValues: false})
		defer it.Close()
		for it.Rewind(); it.Valid(); it.Next() {
			item := it.Item()
			err := item.Value(func(val []byte) error { return f(item.Key(), val) })
			if err != nil {
				return err
			}
		}
		return nil
	})
}
