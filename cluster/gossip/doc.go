// Package gossip watches the other nodes over every heartbeat network.
//
// Each network has a memberlist instance of its own, which gives encryption
// and membership. Whether a path answers is decided by a
// heartbeat on top of it, for memberlist alone accuses a node because of our own
// stall, is fooled by repeated packets, and sees one direction only:
//
// About twenty times per detection time a node sends to each peer, on each path,
// a fresh random number and the last number it got from that peer there. A number
// that comes back proves that the path works both ways and that the peer ran after
// the number was made; nothing else proves anything, so old packets are harmless.
// A path without proof for 85 % of the detection time is down. Time in which this
// node did not run does not count.
//
//	Alive                 some path is proven: the peer was met
//	Silent not zero       no path answers: the peer is suspected
//	neither               this node has just started and does not know yet
//	Leaving               the peer said that it stops; not a failure
//
// # What it promises, and what not
//
// A View is this node's alone: another may see the opposite at the same time. That a peer is silent does not prove
// that it is dead, and nothing here gives anybody a right (cluster/DESIGN.md, rules 3 to 5). How soon a peer can be
// suspected at the earliest is counted on by package guard.
//
// # Goroutines
//
// beat makes each round; keep, one for each network, binds the address and joins who is missing; memberlist has its
// own, on which receive runs. The detector is under Gossip.mu, which is never held while a packet is sent. A
// segment's mu and Gossip.mu are never taken within each other.
//
// # Files, in reading order
//
// detector.go decides and is pure, message.go is what travels, gossip.go drives both, segment.go is memberlist.
// Whoever changes a time in detector.setup looks at package guard, where the same fractions are counted on.
package gossip
