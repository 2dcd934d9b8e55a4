package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// Sizes of a frame, in bytes.
const (
	HeaderSize = 48
	// MaxData is the most guest data one frame carries; larger writes are split.
	MaxData = 1 << 20
	// MaxPayload bounds every frame; the slack over MaxData is for text and masks.
	MaxPayload = MaxData + 4<<10
)

// Version of the protocol: nodes of different ones cannot replicate to each other.
const Version = 1

const magic = 0xD0E7

// ErrCorrupt is returned when a frame fails a check; the connection is then useless.
var ErrCorrupt = errors.New("corrupt frame")

// castagnoli is the CRC-32C table; amd64 and arm64 compute it in hardware.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Type is the kind of a frame.
type Type uint8

// The types of a frame. Hello to Suspects are the handshake; Ack answers every
// request; Refuse may come from the secondary at any time and is its last frame. The numbers are on the wire: a new
// type comes last.
const (
	Hello    Type = iota + 1 // primary: payload is JSON, blockrepl.Hello
	Welcome                  // secondary: payload is JSON, blockrepl.Welcome
	Suspects                 // secondary, after Welcome: payload is extents and region masks
	Write                    // payload is written at Offset
	Zero                     // Count bytes at Offset become zero and stay allocated
	Discard                  // Count bytes at Offset become zero and may become a hole
	Flush                    // every write acknowledged before is made durable
	Read                     // Count bytes at Offset come back as payload of the Ack
	Compare                  // payload: region mask and hashes of the extent at Offset; Ack: mask of those that differ
	Ping                     // asks for an Ack
	Ack                      // done; with FlagError the payload is the reason
	Refuse                   // the right of this epoch is over; payload is JSON, blockrepl.Refusal
	typeEnd
)

var typeNames = [...]string{"none", "hello", "welcome", "suspects", "write", "zero", "discard",
	"flush", "read", "compare", "ping", "ack", "refuse"}

// String is the word used in logs.
func (t Type) String() string {
	if int(t) < len(typeNames) {
		return typeNames[t]
	}
	return fmt.Sprintf("type %d", t)
}

// The flags of a frame.
const (
	// FlagError on an Ack says the request failed; the payload is a sentence. Bit 0 means
	// nothing: older nodes set it on what a resync writes.
	FlagError uint16 = 1 << 1
	flagEnd   uint16 = 1 << 2
)

// Header is the fixed part of a frame, decoded.
type Header struct {
	Type   Type
	Flags  uint16
	Epoch  uint64
	Seq    uint64
	Offset uint64
	Count  uint32
	Length uint32 // bytes of payload; set by Append
}

// put encodes h and the payload's checksum into b[:HeaderSize].
func (h *Header) put(b []byte, payload uint32) {
	_ = b[HeaderSize-1]
	le := binary.LittleEndian
	le.PutUint16(b[0:], magic)
	b[2] = Version
	b[3] = byte(h.Type)
	le.PutUint16(b[4:], h.Flags)
	le.PutUint16(b[6:], 0)
	le.PutUint64(b[8:], h.Epoch)
	le.PutUint64(b[16:], h.Seq)
	le.PutUint64(b[24:], h.Offset)
	le.PutUint32(b[32:], h.Count)
	le.PutUint32(b[36:], h.Length)
	le.PutUint32(b[40:], payload)
	le.PutUint32(b[44:], crc32.Update(0, castagnoli, b[:44]))
}

// parse decodes b[:HeaderSize] and returns the checksum its payload must have. It checks what holds for every
// frame; what its type demands, such as a range within the volume, the receiver of the frame does.
func parse(b []byte) (h Header, payload uint32, err error) {
	_ = b[HeaderSize-1]
	le := binary.LittleEndian
	h = Header{
		Type: Type(b[3]), Flags: le.Uint16(b[4:]), Epoch: le.Uint64(b[8:]), Seq: le.Uint64(b[16:]),
		Offset: le.Uint64(b[24:]), Count: le.Uint32(b[32:]), Length: le.Uint32(b[36:]),
	}
	payload = le.Uint32(b[40:])
	switch {
	case le.Uint16(b[0:]) != magic:
		err = fmt.Errorf("%w: magic %#x", ErrCorrupt, le.Uint16(b[0:]))
	case le.Uint32(b[44:]) != crc32.Update(0, castagnoli, b[:44]):
		err = fmt.Errorf("%w: header checksum", ErrCorrupt)
	case b[2] != Version:
		err = fmt.Errorf("%w: protocol version %d, this node speaks %d", ErrCorrupt, b[2], Version)
	case h.Type == 0 || h.Type >= typeEnd:
		err = fmt.Errorf("%w: %v", ErrCorrupt, h.Type)
	case h.Flags >= flagEnd || le.Uint16(b[6:]) != 0:
		err = fmt.Errorf("%w: unknown flags", ErrCorrupt)
	case h.Length > MaxPayload:
		err = fmt.Errorf("%w: payload of %d bytes", ErrCorrupt, h.Length)
	case h.Offset > 1<<62:
		err = fmt.Errorf("%w: offset %d", ErrCorrupt, h.Offset)
	}
	return h, payload, err
}

// check compares a payload with the checksum its header promised.
func check(payload []byte, want uint32) error {
	if got := crc32.Update(0, castagnoli, payload); got != want {
		return fmt.Errorf("%w: payload checksum %#x, header says %#x", ErrCorrupt, got, want)
	}
	return nil
}
