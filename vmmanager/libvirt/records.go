//go:build linux

package libvirt

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// records tells when libvirtd writes down how a running VM is made. It does so at every change of one, also at those
// that it has no event for: a snapshot that puts the guest's disk on another file is only seen there. It is a hint
// only: the kernel drops events when too many wait (inotify(7)), and nothing is read back from the files.
type records struct{ file *os.File } // inotify

// watchRecords watches libvirtd's directory of run-time files. It fails where that is not there.
func watchRecords(runDir string) (*records, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("watch %s: %w", runDir, err)
	}
	r := &records{os.NewFile(uintptr(fd), "inotify")}
	// A file is written under another name and then takes its place.
	if _, err := unix.InotifyAddWatch(fd, runDir, unix.IN_MOVED_TO|unix.IN_CLOSE_WRITE); err != nil {
		r.file.Close()
		return nil, fmt.Errorf("watch %s: %w", runDir, err)
	}
	return r, nil
}

// each calls seen with the name of each VM whose record changes, until close. close ends a Read that waits, because
// the descriptor is non-blocking and belongs to the runtime's poller. seen must not wait long: the kernel's queue
// is bounded.
func (r *records) each(seen func(vm string)) {
	buf := make([]byte, 16<<10)
	for {
		n, err := r.file.Read(buf)
		if err != nil {
			return
		}
		for _, name := range changed(buf[:n]) {
			if vm, ok := strings.CutSuffix(name, ".xml"); ok {
				seen(vm)
			}
		}
	}
}

func (r *records) close() { _ = r.file.Close() }

// changed returns the file names of the inotify events in b: a header of 16 bytes, which ends with the length of the
// name that follows, padded with zeroes (inotify(7)).
func changed(b []byte) []string {
	const header = unix.SizeofInotifyEvent
	var names []string
	for len(b) >= header {
		length := int(binary.NativeEndian.Uint32(b[header-4:]))
		if len(b) < header+length {
			break
		}
		if name := string(bytes.TrimRight(b[header:header+length], "\x00")); name != "" {
			names = append(names, name)
		}
		b = b[header+length:]
	}
	return names
}
