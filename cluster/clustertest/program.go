package clustertest

import (
	"os"
	"syscall"
)

// WriteProgram writes a program that is run soon. No process is forked meanwhile: it would have the file open for
// writing until it runs another one, and the kernel runs no program that somebody may write (ETXTBSY).
func WriteProgram(path, text string) error {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	return os.WriteFile(path, []byte(text), 0o755)
}
