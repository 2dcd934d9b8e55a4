package gossip

import (
	"encoding/binary"
	"errors"
	"fmt"

	"duet/cluster"
)

// kindHeartbeat is the first byte of a message; others are of other releases.
const kindHeartbeat = 'h'

const (
	flagLeaving  = 1 << 0
	heartbeatLen = 1 + 1 + 8 + 8 + 8 // kind, flags, boot, nonce, echo; the name follows
)

var errMessage = errors.New("malformed gossip message")

// heartbeat is one message of the detector. On the wire: kind, flags, boot, nonce and echo, big endian, then the
// name up to the end of the packet. A newer release may set more flags; anything else is a new kind, which older
// ones drop.
type heartbeat struct {
	from    cluster.NodeID
	boot    uint64 // random, of this run of the sender
	nonce   uint64 // fresh in each round
	echo    uint64 // the last nonce got from the receiver on this path; 0 if none
	leaving bool
}

func (h heartbeat) encode() []byte {
	b := make([]byte, 0, heartbeatLen+len(h.from))
	var flags byte
	if h.leaving {
		flags |= flagLeaving
	}
	b = append(b, kindHeartbeat, flags)
	b = binary.BigEndian.AppendUint64(b, h.boot)
	b = binary.BigEndian.AppendUint64(b, h.nonce)
	b = binary.BigEndian.AppendUint64(b, h.echo)
	return append(b, h.from...)
}

// decodeHeartbeat reads what encode wrote. A packet without a name is malformed.
func decodeHeartbeat(b []byte) (heartbeat, error) {
	if len(b) <= heartbeatLen || b[0] != kindHeartbeat { // flags of a newer release are ignored
		return heartbeat{}, fmt.Errorf("%w: %d bytes", errMessage, len(b))
	}
	return heartbeat{
		from: cluster.NodeID(b[heartbeatLen:]), leaving: b[1]&flagLeaving != 0,
		boot: binary.BigEndian.Uint64(b[2:]), nonce: binary.BigEndian.Uint64(b[10:]), echo: binary.BigEndian.Uint64(b[18:]),
	}, nil
}
