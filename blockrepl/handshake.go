package blockrepl

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"duet/blockrepl/wire"
)

// Hello is the first frame of a connection, from the primary.
type Hello struct {
	Node    string  `json:"node"`
	Epoch   uint64  `json:"epoch"` // the right to write it holds
	Size    int64   `json:"size"`  // bytes
	Lineage Lineage `json:"lineage"`
	Link    uint64  `json:"link"` // random; names this attachment in its Ticket
}

// Ticket is what the primary's engine hands to the secondary's when everything that
// differed was sent. It is good for the attachment in which that was so and for no
// other: one that arrives late must not make a copy complete that has missed writes since.
type Ticket struct {
	Epoch   uint64  `json:"epoch"`
	Link    uint64  `json:"link"`
	Lineage Lineage `json:"lineage"`
}

// Welcome answers Hello; the secondary's suspect regions follow it.
type Welcome struct {
	Node    string  `json:"node"`
	Size    int64   `json:"size"`
	Lineage Lineage `json:"lineage"`
	// Complete: this copy holds every write acknowledged in the epoch of Hello.
	Complete bool `json:"complete"`
	// Intact: this very process has had all of them ever since, so none was lost in a crash. False is always safe: the
	// primary compares what the peer may have lost before it relies on it.
	Intact   bool `json:"intact"`
	Suspects int  `json:"suspects"` // number of extents in the Suspects frames that follow
}

// Refusal says why a secondary does not take part.
type Refusal struct {
	Epoch  uint64 `json:"epoch"`  // the newest it knows
	Holder string `json:"holder"` // of that epoch
	Reason string `json:"reason"`
}

// RefusedError is returned by Attach when the peer refused.
type RefusedError struct{ Refusal }

// Error names the reason and the newer right.
func (e *RefusedError) Error() string {
	if e.Epoch == 0 {
		return "peer refused: " + e.Reason
	}
	return fmt.Sprintf("peer refused: %s (it knows epoch %d of %s)", e.Reason, e.Epoch, e.Holder)
}

// Verdict says how two copies come together.
type Verdict uint8

// The verdicts of Decide. Those from RefuseSize on mean that nothing may be overwritten.
const (
	InStep         Verdict = iota // nothing can differ
	ResyncSuspects                // compare what either side suspects
	ResyncAll                     // compare everything
	RefuseSize                    // the copies have different lengths
	RefuseVolume                  // they are different volumes
	RefuseSource                  // the primary's own copy is a half-finished resync
	RefuseBehind                  // the peer has newer data than the primary
	RefuseDiverged                // both have data the other lacks
)

var verdicts = [...]string{"in step", "resync of suspect regions", "resync of everything",
	"sizes differ", "different volumes", "own copy is incomplete", "peer's data is newer", "copies have diverged"}

// String is the phrase admins see.
func (v Verdict) String() string { return verdicts[v] }

// Refused reports that the copies must not be joined.
func (v Verdict) Refused() bool { return v >= RefuseSize }

// VerdictError is returned by Attach when the copies must not be joined.
type VerdictError struct {
	Verdict       Verdict
	Local, Remote Lineage
}

// Error names both lineages.
func (e *VerdictError) Error() string {
	return fmt.Sprintf("%v: local %v, peer %v", e.Verdict, e.Local, e.Remote)
}

// Decide says what has to be done to bring the secondary's copy in step with the
// primary's; suspects tells whether either side has suspect regions.
//
// The primary's dirty regions count from Lineage.InStep. They say what a copy of
// that generation lacks; a copy of an older one may lack more and is compared whole.
//
// Order matters: whatever refuses comes before anything that overwrites. A peer's copy that is Partial is the
// normal case of an interrupted resync: the dirty regions, of which none was forgotten, still say all that it
// lacks.
func Decide(h Hello, w Welcome, suspects bool) Verdict {
	relation := h.Lineage.Compare(w.Lineage)
	newest, written := w.Lineage.Newest()
	switch {
	case h.Size != w.Size:
		return RefuseSize
	case relation == Unrelated:
		return RefuseVolume
	case relation == Diverged:
		return RefuseDiverged
	case relation == Behind:
		return RefuseBehind
	case h.Lineage.Partial:
		return RefuseSource
	case w.Complete && (relation != Same || w.Lineage.Partial):
		return RefuseDiverged // complete at this epoch and yet other data: the records contradict each other
	case !written:
		return ResyncAll
	case relation == Ahead && !newest.Is(h.Lineage.InStep):
		return ResyncAll
	case suspects || w.Lineage.Partial:
		return ResyncSuspects
	}
	return InStep
}

// ReadHello reads the first frame of a connection that a primary dialled, which the caller has authenticated. The
// engine then accepts it by Secondary.Serve or refuses it by Refuse. After an error the caller closes c.
func ReadHello(ctx context.Context, c *wire.Conn) (Hello, error) {
	var hello Hello
	err := bounded(ctx, c, func() error {
		h, payload, err := c.Next()
		if err != nil {
			return err
		}
		if h.Type != wire.Hello {
			return fmt.Errorf("first frame is %v", h.Type)
		}
		return json.Unmarshal(payload, &hello)
	})
	if err != nil {
		return Hello{}, fmt.Errorf("read hello: %w", err)
	}
	return hello, nil
}

// lastWord bounds the time a refusal may take to be sent.
const lastWord = 100 * time.Millisecond

// Refuse tells the primary why it is not accepted, best effort, and closes the connection.
func Refuse(c *wire.Conn, r Refusal) error {
	payload, err := json.Marshal(r)
	if err != nil {
		return errors.Join(fmt.Errorf("encode refusal: %w", err), c.Close())
	}
	c.Append(&wire.Header{Type: wire.Refuse, Epoch: r.Epoch}, payload)
	return c.CloseSoon(lastWord)
}

// bounded runs f on c and interrupts it when ctx ends, by a deadline in the past. The connection is of no use then.
func bounded(ctx context.Context, c *wire.Conn, f func() error) error {
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	err := f()
	if !stop() {
		return errors.Join(ctx.Err(), err)
	}
	return err
}

// greet sends Hello and reads the answer.
func greet(ctx context.Context, c *wire.Conn, hello Hello) (w Welcome, suspects map[uint32]uint64, err error) {
	err = bounded(ctx, c, func() error {
		payload, err := json.Marshal(hello)
		if err != nil {
			return err
		}
		c.Append(&wire.Header{Type: wire.Hello, Epoch: hello.Epoch}, payload)
		if err := c.Flush(); err != nil {
			return err
		}
		if w, err = readWelcome(c); err != nil {
			return err
		}
		suspects, err = readSuspects(c, w)
		return err
	})
	if err != nil {
		err = fmt.Errorf("the peer does not take part: %w", err)
	}
	return w, suspects, err
}

func readWelcome(c *wire.Conn) (w Welcome, err error) {
	h, payload, err := c.Next()
	if err != nil {
		return w, err
	}
	switch h.Type {
	case wire.Welcome:
		return w, json.Unmarshal(payload, &w)
	case wire.Refuse:
		return w, decodeRefusal(payload)
	}
	return w, fmt.Errorf("answer to hello is %v", h.Type)
}

// decodeRefusal returns the payload of a Refuse frame as an error.
func decodeRefusal(payload []byte) error {
	refused := &RefusedError{}
	if err := json.Unmarshal(payload, &refused.Refusal); err != nil {
		return fmt.Errorf("decode refusal: %w", err)
	}
	return refused
}

// suspectSize is one extent in a Suspects frame: number and mask of regions.
const suspectSize = 12

func readSuspects(c *wire.Conn, w Welcome) (map[uint32]uint64, error) {
	m := make(map[uint32]uint64)
	extents := (w.Size + ExtentSize - 1) / ExtentSize
	for got := 0; got < w.Suspects; {
		h, payload, err := c.Next()
		if err != nil {
			return nil, err
		}
		if h.Type != wire.Suspects || len(payload) == 0 || len(payload)%suspectSize != 0 {
			return nil, fmt.Errorf("%v of %d bytes in place of suspects", h.Type, len(payload))
		}
		for ; len(payload) > 0; payload = payload[suspectSize:] {
			id := binary.LittleEndian.Uint32(payload)
			if int64(id) >= extents {
				return nil, fmt.Errorf("suspect extent %d beyond the end", id)
			}
			m[id] |= binary.LittleEndian.Uint64(payload[4:])
			got++
		}
	}
	return m, nil
}

// sendWelcome answers Hello. A hot entry goes as all regions of its extent; a frame has 32 KiB at most.
func sendWelcome(c *wire.Conn, epoch uint64, w Welcome, entries []Entry) error {
	w.Suspects = len(entries)
	payload, err := json.Marshal(w)
	if err != nil {
		return fmt.Errorf("encode welcome: %w", err)
	}
	c.Append(&wire.Header{Type: wire.Welcome, Epoch: epoch}, payload)
	const perFrame = 32 << 10 / suspectSize
	for len(entries) > 0 {
		n := min(len(entries), perFrame)
		payload = payload[:0]
		for _, e := range entries[:n] {
			mask := e.Dirty
			if e.Hot {
				mask = ^uint64(0)
			}
			payload = binary.LittleEndian.AppendUint32(payload, e.Extent)
			payload = binary.LittleEndian.AppendUint64(payload, mask)
		}
		c.Append(&wire.Header{Type: wire.Suspects, Epoch: epoch}, payload)
		entries = entries[n:]
	}
	return c.Flush()
}
