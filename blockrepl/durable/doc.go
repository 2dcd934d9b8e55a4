// Package durable changes files so that the change survives a power loss. It is on the
// lowest row: whatever keeps files, of volumes, nodes or witnesses, uses it.
//
// On an error nothing is known to be durable, the old state may be there or the new one, and after a power loss
// either. It locks nothing: two writers of one path have to keep apart themselves.
package durable
