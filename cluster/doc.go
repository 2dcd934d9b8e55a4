// Package cluster holds who is here and who may act: the words (NodeID, Epoch,
// View, Config) and the voting rules, as values and pure functions.
//
// The subfolders touch the world: gossip watches the heartbeat networks, mux is
// the one TLS port between nodes, pki makes and fetches certificates.
//
// Nothing here keeps state, blocks or starts a goroutine, and nothing looks at a clock: who calls gives the time and
// makes results durable. Values are given around by copy, and what they refer to is not changed once made: Config,
// View and Voters are shared between goroutines without a lock.
//
// Reading order: cluster.go the words, authority.go who may write, members.go who belongs to it, voters.go who
// votes, version.go what nodes of two releases say to each other, check.go what no configuration may hold. A change
// of authority.go goes with model_test.go and DESIGN.md; a field of Config or Record needs a zero that means what
// its absence meant, for files and nodes of the release before.
package cluster
