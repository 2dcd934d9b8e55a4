//go:build linux && cgo && libvirt_dlopen

package libvirt

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"duet/vmmanager"
)

var _ vmmanager.Locator = (*Hypervisor)(nil)

// Process returns the QEMU that libvirt has on record for the VM, if there is one with that number for that VM: a
// record may be left of one that was killed while libvirtd was away. The command line is read from the memory of
// the process, which may have to be waited for.
func (h *Hypervisor) Process(name string) (int, error) {
	text, err := os.ReadFile(filepath.Join(h.runDir, name+".pid"))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read libvirt's record of VM %s: %w", name, err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || pid <= 0 {
		return 0, nil // it is being written
	}
	if shows(pid, name) == "" {
		return 0, nil
	}
	return pid, nil
}
