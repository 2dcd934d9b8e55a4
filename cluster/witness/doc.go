// Package witness is the third, tiny voter of a cluster and the way to call it
// (cluster/DESIGN.md, rule 3b). It keeps one cluster.Record per module, holds no data, and
// may serve many clusters that know nothing of each other.
//
// Who trusts whom, and why:
//
// A cluster trusts the witness by its key. The witness makes one at its first start;
// the SHA-256 of its public half is in every token, comes to the cluster by the hand
// of an admin, and is pinned from then on. Its certificate only carries that key: names,
// authorities and times in it are not looked at, so no wrong clock locks a cluster out.
//
// The witness trusts a cluster by its authority. A one-time token (Server.NewToken)
// lets an admin register it (Register) under an ID that is random and new each time.
// Every later call needs a certificate of that authority for TLS clients, which also
// says which node calls: nobody asks for the right to write in the name of another. Nodes of
// one cluster do trust each other, for each of them holds the authority's key. The
// witness has no other clock than its own, so it tolerates ClockSkew in both directions:
// a certificate lives for a year, and a day more or less of it protects nobody, while a
// wrong time zone or a late NTP on a third computer is what happens to admins.
//
// Clusters do not trust each other. The ID in a call names the cluster, its authority
// proves it, and records lie under that ID only.
//
// A witness must not forget: a yes is durable before it is said, and if it cannot be
// made durable the caller gets an error, which is no vote. A witness that lost its
// store has lost its registrations too and answers nobody; registered again it has another ID, so
// a node that was away meanwhile and would ask under the old one cannot win with stale data
// from an empty memory. For the same reason its store must never be put back to an
// older state, be it by a backup or by a snapshot of its computer: nothing can tell that.
//
// A witness registered anew knows nothing and would agree to the first who asks. So before the nodes
// count on it, while they are connected, the holder of each module asks it for the epoch it holds.
package witness
