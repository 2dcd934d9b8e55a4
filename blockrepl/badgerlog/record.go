package badgerlog

import (
	"errors"
	"fmt"

	"github.com/dgraph-io/badger/v4"
)

// Get returns the record at key, and whether there is one. The value is the caller's.
func (s *Store) Get(key string) (val []byte, ok bool, err error) {
	err = s.view(func(txn *badger.Txn) error {
		item, err := txn.Get(recordKey(key))
		if err != nil {
			return err
		}
		val, err = item.ValueCopy(nil)
		return err
	})
	if errors.Is(err, badger.ErrKeyNotFound) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, fmt.Errorf("get %q: %w", key, err)
	}
	return val, true, nil
}

// smallRecord is the size in bytes up to which a Put may use the last free space: so a
// node whose disk has no room for dirty logs any more can still give the right away.
const smallRecord = 16 << 10

// Put stores all of puts and removes all of deletes as one atomic step, and
// returns when that survives power loss. A value may have 256 KiB, a step about 600 KiB. After ErrFull or ErrClosed
// none of it is stored; after any other error both a Get and a restart may find it or not, as a vote that was not
// given but is remembered. It is done in order with the commits and Puts before it, of all callers.
func (s *Store) Put(puts map[string][]byte, deletes ...string) error {
	ws := make([]write, 0, len(puts)+len(deletes))
	size := 0
	for k, v := range puts {
		if len(v) > maxValue {
			return fmt.Errorf("put %q: value of %d bytes is over the limit of %d", k, len(v), maxValue)
		}
		ws = append(ws, write{key: recordKey(k), val: append([]byte{}, v...)})
		size += len(v)
	}
	for _, k := range deletes {
		if _, ok := puts[k]; ok {
			return fmt.Errorf("put %q: stored and removed in one step", k)
		}
		ws = append(ws, write{key: recordKey(k)})
	}
	if !s.max.hold(ws) {
		return fmt.Errorf("put: %d records are too much for one step", len(ws))
	}
	done := make(chan error, 1)
	s.submit(op{writes: ws, small: size <= smallRecord, done: func(err error) { done <- err }})
	if err := <-done; err != nil {
		return fmt.Errorf("put: %w", err)
	}
	return nil
}

// List returns all records whose key begins with prefix, as of one moment.
func (s *Store) List(prefix string) (map[string][]byte, error) {
	out := make(map[string][]byte)
	err := s.scan(recordKey(prefix), func(key, val []byte) error {
		out[string(key[1:])] = append([]byte{}, val...)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list %q: %w", prefix, err)
	}
	return out, nil
}

// view runs f in a read transaction. Reads go on while Close drains the queue,
// but not once the files are closed.
func (s *Store) view(f func(*badger.Txn) error) error {
	s.files.RLock()
	defer s.files.RUnlock()
	if s.down {
		return ErrClosed
	}
	return s.db.View(f)
}

func recordKey(key string) []byte { return append([]byte{kindRecord}, key...) }
