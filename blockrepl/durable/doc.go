// Package durable changes files so that the change survives a power loss. It is on the
// lowest row: whatever keeps files, of volumes, nodes or witnesses, uses it.
package durable
