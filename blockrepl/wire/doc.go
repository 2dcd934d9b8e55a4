// Package wire is the replication protocol between a Primary and a Secondary:
// frames, their codec and a connection that batches them. Protocol version 1.
//
// One connection carries one volume. The primary dials, sends Hello and gets
// Welcome; then it sends requests and the secondary answers each with one Ack of
// the same Seq. The secondary applies frames in the order received.
//
// Frame: 48 bytes of header, then Length bytes of payload. Little-endian.
//
//	0  magic   uint16  0xD0E7
//	2  version uint8   1
//	3  type    uint8
//	4  flags   uint16
//	6  zero    uint16
//	8  epoch   uint64  the writer's right; a secondary that knows a newer one refuses
//	16 seq     uint64  number of the request, 1, 2, 3…; answers repeat it
//	24 offset  uint64  bytes
//	32 count   uint32  bytes covered by Zero, Discard, Read and Compare; else 0
//	36 length  uint32  bytes of payload, at most MaxPayload
//	40 payload uint32  CRC-32C of the payload
//	44 header  uint32  CRC-32C of bytes 0 to 43
//
// A frame that fails a check ends the connection: after it nothing can be trusted to be in step.
//
// The checksums find what TCP's and a bad memory on the way let through; who sent a frame is known by TLS, which is
// below a Conn and no matter of this package. A frame that one release does not know ends the connection as well,
// so a new type or flag needs another Version, or a field in Hello and Welcome by which both sides know that it is
// understood.
//
// Files: frame.go is the format, conn.go what callers use; sender.go and receiver.go are its two directions,
// stream.go and try_*.go the socket.
package wire
