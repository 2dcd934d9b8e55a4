// Package enroll lets newcomers in by one-time tokens: a node into a cluster, a cluster into a
// witness. A token is text that a person carries; the Desk that made it keeps a record without
// the secret. It is above package ratelimit only.
//
// desk.go is what happens to tokens, token.go what they are. Nothing here knows what a bearer gets: that is
// Request.Do.
package enroll
