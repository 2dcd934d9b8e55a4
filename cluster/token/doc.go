// Package token makes the one-time tokens by which a node joins a cluster and a cluster
// registers with a witness: text that a person carries, a record without the secret that
// stays with whoever made it, and a brake for those who guess. It is on the lowest row.
package token
