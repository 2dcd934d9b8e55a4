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
// engine tells the Primary (DESIGN.md in this folder describes the seam).
package blockrepl
