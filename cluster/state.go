package cluster

import "encoding"

// State is a piece of knowledge that nodes gossip. Merge takes what a peer's
// MarshalBinary gave and must be commutative, associative and idempotent, so
// that order, loss and repetition of messages do not matter. Both may be called
// by several goroutines.
type State interface {
	encoding.BinaryMarshaler
	Merge(b []byte) error
}
