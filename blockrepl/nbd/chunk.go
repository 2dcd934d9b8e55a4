package nbd

import (
	"math/bits"
	"sync"
)

// chunkSize is the usual size of a buffer; slack lets a power of two of data have its header.
const (
	chunkSize = 256 << 10
	slack     = 4 << 10
	classes   = 8 // sizes of a pool: chunkSize<<7 is maxPayload
)

// chunk is a buffer shared by the requests that have data in it. Who holds a reference may use its part of buf;
// with the last one gone it is anybody's.
type chunk struct {
	buf  []byte
	refs int // guarded by the mutex of the outbox it is used under
}

// chunkPool keeps free chunks by size class. All connections of a Server share it. Chunks keep what is in them, so one
// connection's data may lie in the next one's chunk: no more of it is ever sent than was written anew.
type chunkPool struct{ free [classes]sync.Pool }

// class is the size class for n bytes: class k holds up to chunkSize<<k, and the slack.
func class(n int) int {
	if n <= chunkSize+slack {
		return 0
	}
	return bits.Len(uint(n-slack-1) / chunkSize)
}

// get returns a chunk of at least n bytes, n at most maxPayload+slack, with one reference.
func (p *chunkPool) get(n int) *chunk {
	k := class(n)
	ch, _ := p.free[k].Get().(*chunk)
	if ch == nil {
		ch = &chunk{buf: make([]byte, chunkSize<<k+slack)}
	}
	ch.refs = 1
	return ch
}

func (p *chunkPool) put(ch *chunk) { p.free[class(len(ch.buf))].Put(ch) }
