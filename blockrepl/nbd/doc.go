// Package nbd offers a volume to QEMU, and to every other NBD client, over a
// unix socket: it implements blockrepl.Frontend.
//
// The protocol is fixed newstyle NBD (NetworkBlockDevice/nbd doc/proto.md) with
// structured replies, block sizes and the base:allocation map (of a queue that knows its holes), without TLS: the
// socket is for this computer only. One socket serves one volume to any number
// of connections; a flush on one covers the writes completed on all.
//
// A connection is one goroutine that reads and one that writes when the fast way is shut:
//
//	socket ─read─▶ chunk ─parse─▶ Queue.Submit … Kick        one system call brings many requests;
//	                 ▲ payloads of writes stay where they are  a chunk is freed with its last request
//	socket ◀─send── outbox ◀─Complete, CompleteBatch─ Queue   one system call takes many answers;
//	                 ▲ reads were done straight into it        sent by the goroutine that completed
//
// Memory is bounded per connection (budget) by not reading more requests.
// Nonsense from a client ends its connection and touches nothing else. A
// request that ends with blockrepl.ErrClosed gets no answer: the connection is
// dropped, and the client connects again and repeats it.
//
// proto.go and negotiate.go are pure; conn.go reads, outbox.go sends, link.go is the socket.
package nbd
