// Package machine makes real Debian machines.
package machine
