package gossip

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"duet/cluster"
)

// The first byte of a message.
const (
	kindHeartbeat = 'h'
	kindStates    = 's'
)

const (
	flagLeaving  = 1 << 0
	heartbeatLen = 1 + 1 + 8 + 8 + 8 // kind, flags, boot, nonce, echo; the name follows
)

var errMessage = errors.New("malformed gossip message")

// heartbeat is one message of the detector.
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

func decodeHeartbeat(b []byte) (heartbeat, error) {
	if len(b) <= heartbeatLen || b[0] != kindHeartbeat || b[1]&^flagLeaving != 0 {
		return heartbeat{}, fmt.Errorf("%w: %d bytes", errMessage, len(b))
	}
	return heartbeat{
		from: cluster.NodeID(b[heartbeatLen:]), leaving: b[1]&flagLeaving != 0,
		boot: binary.BigEndian.Uint64(b[2:]), nonce: binary.BigEndian.Uint64(b[10:]), echo: binary.BigEndian.Uint64(b[18:]),
	}, nil
}

// namedState is one State as it travels: kind, then for each state its name and
// its bytes, both with their length in front.
type namedState struct {
	name string
	data []byte
}

func encodeStates(states []namedState) []byte {
	b := []byte{kindStates}
	for _, s := range states {
		b = binary.AppendUvarint(b, uint64(len(s.name)))
		b = append(b, s.name...)
		b = binary.AppendUvarint(b, uint64(len(s.data)))
		b = append(b, s.data...)
	}
	return b
}

func decodeStates(b []byte) ([]namedState, error) {
	if len(b) == 0 || b[0] != kindStates {
		return nil, errMessage
	}
	var out []namedState
	for b = b[1:]; len(b) > 0; {
		name, rest, err := field(b)
		if err != nil {
			return nil, err
		}
		data, rest, err := field(rest)
		if err != nil {
			return nil, err
		}
		out = append(out, namedState{string(name), data})
		b = rest
	}
	return out, nil
}

func field(b []byte) (value, rest []byte, err error) {
	n, k := binary.Uvarint(b)
	if k <= 0 || n > math.MaxInt32 || int(n) > len(b)-k {
		return nil, nil, fmt.Errorf("%w: length", errMessage)
	}
	return b[k : k+int(n)], b[k+int(n):], nil
}
