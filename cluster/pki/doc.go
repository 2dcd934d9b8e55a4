// Package pki makes and fetches the certificates of a cluster.
//
// A cluster has one certificate authority of its own, made by Init on the first
// node. Every node keeps the authority's key, so any of them can admit the next
// one and renew its own certificate without asking. Trust rests on that one
// pinned authority; names and addresses are not looked up anywhere, a
// certificate says which node it is by its common name.
//
// A new node joins with a one-time token that an admin carries over (Admission, Join):
// the token's secret proves the newcomer to the cluster and its fingerprint
// proves the cluster to the newcomer.
//
// # What it promises, and what not
//
// A certificate proves that some node of the cluster signed for that name once. It does not prove that the node is a
// member now: that is membership.Checked, around Identity. Whoever holds a copy of the authority's key can sign for
// any name, and nothing takes a copy back; there are no lists of revoked certificates. Times are checked by this
// computer's clock.
//
// The key of a node is made once, at Init or Join, and stays: members know the node by it (cluster.Member.Key).
//
// # Goroutines
//
// None of its own but in Admission.Serve, which waits for all of them. Join blocks on the network, Init, Load and
// Renew on the disk.
//
// # Files, in reading order
//
// issue.go signs, files.go stores, identity.go is what a node has, tls.go how two nodes check each other;
// admission.go and join.go are both sides of a join, token.go its token. What a certificate says is in
// authority.sign, what is believed of it in verifyNode: change both together.
package pki
