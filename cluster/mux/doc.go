// Package mux is the one port of a node: all traffic between nodes runs through
// it, over TCP and TLS 1.3 with the certificates of both sides checked.
//
// After the handshake the caller sends one byte that selects a service and gets one byte back, so a Dial that
// returned found the service open:
//
//	caller   service byte     'R' replication, 'C' control, …
//	callee   0 accepted, 1 no such service, 2 not allowed
//
// Only the service Join is open to callers without a certificate. A node may have
// an address on each of several networks; Dial tries them in order, staggered, and
// HTTPTransport moves a request to another path when one falls silent.
//
// # What it promises, and what not
//
// The other side of a connection is the node that the caller meant, or a member, at the moment of the handshake. A
// connection outlives a membership: who must know looks at each call (MemberFrom, as control.Plane.Handler does), and
// HTTPTransport does so before each request. That Dial returned
// does not say that somebody has accepted: a service that accepts nothing within handshakeTimeout is hung up on.
// Nothing here decides that a node is dead; that is package gossip's.
//
// # Goroutines
//
// One follows the addresses of the configuration, one accepts on each of them, one runs each handshake and one each
// attempt to dial or to send a request. Stop waits for all of them. No lock is held while the network is waited for.
//
// # Files, in reading order
//
// mux.go is the port and its life, accept.go the callee's side, dial.go the caller's, http.go requests over several
// paths, sock_linux.go when a connection counts as dead. What bounds strangers is in package ratelimit, who is
// trusted behind Identity.
package mux
