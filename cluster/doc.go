// Package cluster holds who is here and who may act: the words (NodeID, Epoch,
// View, Config) and the voting rules, as values and pure functions.
//
// The subfolders touch the world: gossip watches the heartbeat networks, mux is
// the one TLS port between nodes, pki makes and fetches certificates.
package cluster
