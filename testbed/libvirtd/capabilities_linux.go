package libvirtd

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// hostUUID returns an id that is always the same for a name and another one for each name: libvirt refuses to migrate
// between daemons of one id, and all nodes share the computer's.
func hostUUID(name string) string {
	h := sha256.Sum256([]byte("duet testbed node " + name))
	h[6], h[8] = h[6]&0x0f|0x80, h[8]&0x3f|0x80 // version 8 (free form), RFC 9562 variant
	return fmt.Sprintf("%x-%x-%x-%x-%x", h[:4], h[4:6], h[6:8], h[8:10], h[10:16])
}

// The daemon writes its cache file in place and would read a half-written one of a neighbour. So every node has its own
// copy, taken before the daemon starts, and only whole files come back. libvirt itself finds out whether a file is out
// of date (it holds the times of the QEMU and libvirt binaries, the kernel's version and more).

func (d *Daemon) ownCapabilities() string {
	return filepath.Join(d.cfg.path("/var/cache/libvirt"), "qemu", "capabilities")
}

func (d *Daemon) loadCapabilities() error {
	if d.cfg.Capabilities == "" {
		return nil
	}
	return copyMissing(d.cfg.Capabilities, d.ownCapabilities(), nil)
}

func (d *Daemon) saveCapabilities() error {
	if d.cfg.Capabilities == "" {
		return nil
	}
	// A file that is older than the shared one is the copy that was taken from it.
	newer := func(own, shared fs.FileInfo) bool { return own.ModTime().After(shared.ModTime()) }
	return copyMissing(d.ownCapabilities(), d.cfg.Capabilities, newer)
}

// copyMissing copies each XML file that dst lacks, or that replace prefers, under its name and time. Times are
// kept, as libvirt compares them; two nodes may do it at once, and the last one wins.
func copyMissing(src, dst string, replace func(src, dst fs.FileInfo) bool) error {
	files, err := filepath.Glob(filepath.Join(src, "*.xml"))
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dst, 0o755); err != nil {
		return fmt.Errorf("copy QEMU capabilities: %w", err)
	}
	for _, file := range files {
		to := filepath.Join(dst, filepath.Base(file))
		from, err := os.Stat(file)
		if err != nil {
			return fmt.Errorf("copy QEMU capabilities: %w", err)
		}
		old, err := os.Stat(to)
		if err == nil && (replace == nil || !replace(from, old)) {
			continue
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("copy QEMU capabilities: %w", err)
		}
		if err := copyWhole(file, to, from); err != nil {
			return fmt.Errorf("copy QEMU capabilities: %w", err)
		}
	}
	return nil
}

// copyWhole makes to appear with its full content or not at all.
func copyWhole(from, to string, info fs.FileInfo) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(to), ".part-")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name()) // fails after the rename, as it should
	_, err = tmp.Write(b)
	if err = errors.Join(err, tmp.Close()); err != nil {
		return err
	}
	if err := os.Chtimes(tmp.Name(), info.ModTime(), info.ModTime()); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), to)
}
