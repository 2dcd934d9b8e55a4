// Package console serves a node's API to people and tools: on a unix socket that
// only root may open, and over TLS 1.3 to whoever has the node's token or a
// certificate of the cluster.
package console
