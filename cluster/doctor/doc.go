// Package doctor judges whether the nodes of a cluster can do their work: facts in,
// findings out, each with its remedy. It is pure. Its folder host gathers the facts of
// one computer; the daemon adds its own and asks the other nodes for theirs.
package doctor
