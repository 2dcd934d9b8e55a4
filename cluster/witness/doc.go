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
// store has lost its registrations too and answers nobody; it has to be registered under another ID (voting.Panel.Add
// does so), so that a node that was away meanwhile and asks under the old one cannot win
// with stale data from an empty memory. For the same reason its store must never be put back to an
// older state, be it by a backup or by a snapshot of its computer: nothing can tell that.
//
// A witness registered anew knows nothing and would agree to the first who asks. So before the nodes
// count on it, while they are connected, the holder of each module asks it for the epoch it holds.
//
// # What it does not do
//
// It knows no policy and tells nobody anything: it is only asked. It sees neither data nor whether nodes hear each
// other. That it agrees proves only what cluster.Record.Vote proves.
//
// # Goroutines and locks
//
// A Server has those of net/http, one for each call, and none of its own. Locks are taken in this order: the desk's
// (one registration or Forget at a time), tenant.forgetting, then a module's seat, then Server.mu or tenant.mu,
// which are held for moments only. A vote holds its seat and forgetting (for reading) while the store is written, so
// votes of different modules do not wait for each other; what takes records away waits for the votes under way and
// keeps new ones out.
//
// # Files, in reading order
//
// vote.go is the vote, members.go who may ask, registry.go which clusters there are, trust.go and identity.go the
// certificates, http.go the calls, server.go the life of it; client.go is the nodes' side. A new call needs a path
// and a handler in http.go and a method of Client; a new reason for a refusal a sentinel in trust.go and a line in
// kinds.
package witness
