package blockrepl

import "errors"

// Op is the kind of a Request.
type Op uint8

// The operations of a Queue. OpDiscard and OpZero act as the Device methods of the same names.
const (
	OpRead Op = iota
	OpWrite
	OpFlush
	OpDiscard
	OpZero
)

// ErrClosed is returned for requests of a volume that was closed under them; the
// frontend must not answer them but drop its connection, so that the guest retries. Whether such a write has reached a
// copy is not known.
var ErrClosed = errors.New("volume closed")

// Request is one I/O of a guest. The submitter owns it again when Complete is
// called; until then the volume owns it and Data, which the peer's socket and the device may read at any time. It
// may be submitted again, with other fields, as often as wanted, but not copied while the volume has it.
type Request struct {
	Op   Op
	FUA  bool // durable on both nodes before completion
	Off  int64
	Len  int64  // bytes; equals len(Data) for OpRead and OpWrite; 0 for OpFlush
	Data []byte // read: filled by the volume; write: not changed by anybody until completion
	By   Completer

	flight flight // the volume's own bookkeeping
}

// Completer takes finished requests. The submitter implements it.
type Completer interface {
	// Complete reports that r is done. It runs on a goroutine of the volume or
	// inside Submit or Kick, must not block and must not call back into the Queue: Fence waits for it, and so does a
	// node's yes to another holder.
	Complete(r *Request, err error)
	// CompleteBatch is called after one or more Complete calls by the same
	// goroutine; the place to send the answers out with one system call. It must not block.
	CompleteBatch()
}

// Queue is the asynchronous face of a volume: many requests in flight, no
// goroutine per request.
//
// Requests may complete in any order. A write is not reordered against another
// write or a read that overlaps it: they take effect in the order of Submit.
// A flush covers every write completed before it was submitted.
type Queue interface {
	// Submit hands r over and returns without waiting for it.
	Submit(r *Request)
	// Kick sends on what was submitted; called once after a batch of Submits. Without it a request may never begin.
	// It may do the local I/O on the caller's goroutine.
	Kick()
	// Size is the length of the volume in bytes.
	Size() int64
}
