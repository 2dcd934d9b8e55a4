//go:build linux && cgo && libvirt_dlopen

package libvirt

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"duet/vmmanager"
	"duet/vmmanager/vmtest"
)

// onVolume runs a VM whose disk an NBD server serves.
func (n *node) onVolume(t *testing.T, name, extra string) vmmanager.Endpoint {
	t.Helper()
	image := n.bootDisk(name, 1<<20)
	to := vmmanager.Endpoint{Target: "vda", Socket: n.serve(image, filepath.Join(n.dir, name+".nbd")).socket}
	text := strings.Replace(n.domain(name, fileDisk(image, "raw", "")), "</devices>", "</devices>"+extra, 1)
	def, err := n.h.Rewire(vmmanager.Definition{Name: name, Text: []byte(text)}, []vmmanager.Endpoint{to})
	must(t, err)
	n.run(t, name, string(def.Text))
	return to
}

// testStrays: what an admin does to the disks of a running VM is told at once, and where they are.
func (n *node) testStrays(t *testing.T) {
	const name = "strays"
	ctx := vmtest.Context(t)
	to := n.onVolume(t, name, "")
	events := vmtest.Watch(t, n.h, name)
	admin := func(want []vmmanager.Stray, hand ...string) {
		t.Helper()
		_, err := n.virsh(hand...)
		must(t, err)
		did := time.Now()
		for {
			events.Disk()
			got, err := n.h.Strays(ctx, name, []vmmanager.Endpoint{to})
			must(t, err)
			if slices.Equal(got, want) {
				break
			}
		}
		if took := time.Since(did); took > time.Second {
			t.Errorf("%v was seen after %v", hand, took)
		}
	}
	layer := filepath.Join(n.dir, name+".layer")
	admin([]vmmanager.Stray{{Target: "vda", On: layer, Above: true}},
		"snapshot-create-as", name, "s1", "--disk-only", "--no-metadata", "--diskspec", "vda,file="+layer)
	admin(nil, "blockcommit", name, "vda", "--active", "--pivot", "--wait")
	more := n.sparse(t, name+".more", 1<<20)
	admin([]vmmanager.Stray{{Target: "vdb", On: more, Extra: true}}, "attach-disk", name, more, "vdb", "--live",
		"--driver", "qemu")
	must(t, n.h.Kill(ctx, name))
	if got, err := n.h.Strays(ctx, name, nil); err != nil || len(got) != 0 {
		t.Errorf("strays of a VM that is off: %v, %v", got, err)
	}
}

// testUser: the volume of a VM is open to the user its QEMU has, the distribution's or that of its own label, and QEMU
// is known by what libvirt has on record.
func (n *node) testUser(t *testing.T) {
	for name, extra := range map[string]string{
		"userstock": "",
		"userroot":  "<seclabel type='static' model='dac' relabel='yes'><label>+0:+0</label></seclabel>",
	} {
		to := n.onVolume(t, name, extra)
		pid := n.qemu(name)[0].pid
		info, err := os.Stat(filepath.Join("/proc", fmt.Sprint(pid)))
		must(t, err)
		socket, err := os.Stat(to.Socket)
		must(t, err)
		st, want := socket.Sys().(*syscall.Stat_t), info.Sys().(*syscall.Stat_t)
		if st.Uid != want.Uid || socket.Mode().Perm() != 0o755 { // qemu-nbd's own mode: Duet's sockets have 0600
			t.Errorf("%s: QEMU is user %d, its volume belongs to %d with mode %v", name, want.Uid, st.Uid, socket.Mode())
		}
		if stock := want.Uid != 0; stock != (extra == "") {
			t.Errorf("%s: QEMU runs as user %d", name, want.Uid)
		}
		inside, err := n.proc.Run(vmtest.Context(t), "pgrep", "-f", "guest="+name)
		must(t, err)
		own := 0
		_, err = fmt.Sscan(string(inside), &own)
		must(t, err)
		if err := n.h.Runs(name, own); err != nil {
			t.Errorf("%s: its own QEMU is refused: %v", name, err)
		}
		for _, other := range []int{1, own + 1, 0} {
			if n.h.Runs(name, other) == nil {
				t.Errorf("%s: process %d is taken for its QEMU %d", name, other, own)
			}
		}
	}
	if err := n.h.Runs("usernone", os.Getpid()); err == nil {
		t.Error("a VM that does not run has a process")
	}
}
