package main

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

func TestTerminal(t *testing.T) {
	tty, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skip("no pseudo terminals here: ", err)
	}
	defer tty.Close()
	if err := unix.IoctlSetWinsize(int(tty.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 25, Col: 132}); err != nil {
		t.Fatal(err)
	}
	if !isTerminal(tty) || terminalWidth(tty) != 132 {
		t.Errorf("terminal: %v, width %d", isTerminal(tty), terminalWidth(tty))
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	if isTerminal(null) || terminalWidth(null) != 0 {
		t.Error("/dev/null is taken for a terminal")
	}
}
