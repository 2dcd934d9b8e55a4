//go:build !linux && !windows

package main

import "os"

// isTerminal is false: terminals are not known on this system, so output is plain.
func isTerminal(*os.File) bool { return false }

// terminalWidth is unknown on this system.
func terminalWidth(*os.File) int { return 0 }
