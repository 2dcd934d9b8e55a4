// Package ratelimit bounds what strangers can take of a node: guesses of secrets (Brake), and
// what goes on at once (Gate). It is on the lowest row and knows nothing of whom it protects.
package ratelimit
