package badgerlog

import (
	"encoding/json"
	"fmt"
	"strings"
)

// Values keeps JSON values in a Store, under keys that begin with Prefix, which callers
// do not see. It keeps what engines and witnesses remember. No Prefix may begin with another user's, whose Keys would
// list both.
type Values struct {
	Store  *Store
	Prefix string
}

// Load reads a value; false if there is none, and v is as it was then. Fields that v has and the stored value lacks
// keep what they were, as of a release before.
func (s Values) Load(key string, v any) (bool, error) {
	b, ok, err := s.Store.Get(s.Prefix + key)
	if err != nil || !ok {
		return false, err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return false, fmt.Errorf("read %s%s from the store: %w", s.Prefix, key, err)
	}
	return true, nil
}

// Save writes a value; it survives power loss when Save returns nil.
func (s Values) Save(key string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode %s%s: %w", s.Prefix, key, err)
	}
	return s.Store.Put(map[string][]byte{s.Prefix + key: b})
}

// Delete forgets a value, durably; one that is not there is no error.
func (s Values) Delete(key string) error { return s.Store.Put(nil, s.Prefix+key) }

// Keys lists the keys that begin with prefix, in no order, without Prefix.
func (s Values) Keys(prefix string) ([]string, error) {
	found, err := s.Store.List(s.Prefix + prefix)
	keys := make([]string, 0, len(found))
	for k := range found {
		keys = append(keys, strings.TrimPrefix(k, s.Prefix))
	}
	return keys, err
}
