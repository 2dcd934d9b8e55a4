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
package gossip
