// Package console serves a node's API to people and tools: on a unix socket that
// only root may open, and over TLS 1.3 to whoever has the node's token or a
// certificate of the cluster.
//
// Whoever is let in may do everything: there is one right, and the calls that change something are logged with who
// made them (audit). What is served is package api's; this package knows no call. Each server has a goroutine, and
// net/http one for each connection; none outlives Stop but a call that does not end although its connection was
// cut.
//
//	server.go   the two servers and their end; tls.go what TLS offers
//	auth.go     who may call over TLS, and the token's file
//	socket_*.go the unix socket
package console
