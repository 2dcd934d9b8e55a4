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
package pki
