// Package mux is the one port of a node: all traffic between nodes runs through
// it, over TCP and TLS 1.3 with the certificates of both sides checked.
//
// After the handshake the caller sends one byte that selects a service and gets
// one byte back, so a Dial that returned reached a listener that wants it:
//
//	caller   service byte     'R' replication, 'C' control, …
//	callee   0 accepted, 1 no such service, 2 not allowed
//
// Only the service Join is open to callers without a certificate. A node may have
// an address on each of several networks; Dial tries them in order, staggered, and
// HTTPTransport moves a request to another path when one falls silent.
package mux
