// Package check judges histories after a test: what guests were told against what the disk holds, and reads
// against writes. All of it is pure: it reads no clock and no file, and may be called by any goroutine.
package check
