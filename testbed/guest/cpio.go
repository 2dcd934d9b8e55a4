package guest

import (
	"fmt"
	"io"
)

// archive writes the "newc" cpio format that the kernel unpacks as its initramfs. The first error sticks and is
// returned by close.
type archive struct {
	w   io.Writer
	at  int64
	ino int
	err error
}

const (
	modeDir  = 0o040755
	modeExec = 0o100755
	modeFile = 0o100644
)

func (a *archive) dir(name string)                         { a.entry(name, modeDir, nil) }
func (a *archive) file(name string, mode uint32, b []byte) { a.entry(name, mode, b) }

func (a *archive) close() error {
	a.entry("TRAILER!!!", 0, nil)
	return a.err
}

// entry: header and name, then the content, are each padded to four bytes; folders come before what is in them.
func (a *archive) entry(name string, mode uint32, content []byte) {
	a.ino++
	// magic, ino, mode, uid, gid, nlink, mtime, filesize, device major and minor, rdev major and minor, namesize, check
	a.write(fmt.Appendf(nil, "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X",
		a.ino, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name)+1, 0))
	a.write(append([]byte(name), 0))
	a.pad()
	a.write(content)
	a.pad()
}

func (a *archive) write(b []byte) {
	if a.err != nil {
		return
	}
	n, err := a.w.Write(b)
	a.at += int64(n)
	a.err = err
}

func (a *archive) pad() { a.write(make([]byte, -a.at&3)) }
