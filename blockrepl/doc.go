// Package blockrepl replicates one disk onto two nodes.
//
// A volume is one replicated disk. On the node that may write (the holder of
// the module's newest epoch) a Primary sits between the hypervisor and the
// local Device; on the peer a Secondary applies what the Primary sends.
//
//	QEMU ── nbd.Server ──▶ Primary ──▶ Device          (this node)
//	                          │
//	                          └─ wire frames, TLS ──▶ Secondary ──▶ Device   (peer)
//
// This package holds the words, the contracts and the engine; it imports only
// the standard library and wire. What touches the world is a subfolder: backing
// (files, block devices), badgerlog (the durable DirtyLog), nbd (the Frontend).
// Whether a node may write is not decided here: package cluster decides, package
// engine tells the Primary (DESIGN.md in this folder describes the seam, the laws of the parts, and what is durable
// before what; its table of files is the reading order).
//
// Promises: a write is completed when both copies have it, or when the epoch in which this node has it alone is
// durable here; copies that may differ are known to, durably, before they do; after Fence nothing is acknowledged.
// Not promised: that a request ever ends (without a right to go on, or with a failed local copy, it waits until the
// volume is closed), and that a copy is durable without a flush.
//
// Goroutines of a Primary: notify, runIssue, runFlush, runWatch from Start to Close; listen, resync and its workers
// per link; readers, a verify and a probe while there is something to do; and whoever calls Submit and Kick. Of a
// Secondary: those of the session that runs. Both log through a journal, so a logger that is stuck holds up
// nothing.
//
// Where to change what: a state or who may write in it in standing.go, what a write waits for in settled
// (issue.go), what must be durable before it in commit.go and tracker.go, how copies come together in Decide
// (handshake.go), what goes over the wire in package wire first.
package blockrepl
