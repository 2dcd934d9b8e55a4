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
// What it does not do: it decides nothing about the data (order, durability and holes are the Queue's), it does not
// time requests out, and it knows one export only. A frozen volume simply does not answer; its client waits.
//
// Locks: Server.mu, then outbox.mu; never a call of the Queue with either held, as a Queue may complete requests
// inside Submit and Kick. An outbox's mutex guards all that its connection holds, the references of its chunks
// included.
//
// Files: proto.go and negotiate.go are pure; server.go has the socket and its clients; conn.go reads, command.go is
// what each request means, outbox.go sends, chunk.go is the memory, link.go and trysend_*.go are the socket of one
// client. A new option is a line in optionHandlers, a new command one in commands.
package nbd
