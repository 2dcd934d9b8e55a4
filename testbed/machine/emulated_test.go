//go:build linux

package machine

import (
	"context"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"duet/testbed/netns"
	"duet/vmmanager/vmtest"
)

var withEmulated = flag.Bool("emulated", false, "boot machines with Debian's own kernel too, which takes minutes")

// TestEmulated: a machine with Debian's kernel has what a container lacks: AppArmor that confines libvirt's VMs, and
// kernel modules.
func TestEmulated(t *testing.T) {
	needs(t, "nsenter", "nft", "ip", "mkfs.ext4", "qemu-system-x86_64")
	if !*withEmulated {
		t.Skip("takes minutes: `make field` runs it with -emulated")
	}
	for _, r := range Releases {
		t.Run(r.String(), func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
			defer cancel()
			s := site(ctx, t, "dme", 2, Spec{Name: "metal", Release: r, Emulated: true})
			m := s.Machines["metal"]
			began := time.Now()
			must(t, m.Boot(ctx))
			t.Logf("it is up after %v", time.Since(began).Round(time.Second))
			isReal(ctx, t, m)
			if on := do(ctx, t, m, "cat /sys/module/apparmor/parameters/enabled"); on != "Y" {
				t.Errorf("AppArmor enabled: %s", on)
			}
			do(ctx, t, m, "modprobe nbd && test -b /dev/nbd0")
			do(ctx, t, m, "ping -q -c 1 -W 5 "+s.LAN.Addr(netns.Gateway, "lan").String())
			confined(ctx, t, m)
			onVolume(ctx, t, m)
			lives(ctx, t, m)
		})
	}
}

// confined starts a VM and looks at the profile that its QEMU runs under.
func confined(ctx context.Context, t *testing.T, m Machine) {
	t.Helper()
	dir := t.TempDir()
	image := make([]byte, 1<<20)
	copy(image, vmtest.BootSector())
	const xml = `<domain type='qemu'><name>small</name><memory unit='MiB'>32</memory>` +
		`<os><type machine='pc'>hvm</type></os><devices><disk type='file' device='disk'><driver name='qemu' type='raw'/>` +
		`<source file='/var/lib/libvirt/images/small.img'/><target dev='vda' bus='virtio'/></disk></devices></domain>`
	for name, content := range map[string][]byte{"small.img": image, "small.xml": []byte(xml)} {
		file := filepath.Join(dir, name)
		must(t, os.WriteFile(file, content, 0o644))
		must(t, m.Push(ctx, file, "/var/lib/libvirt/images/"+name))
	}
	do(ctx, t, m, "virsh -c qemu:///system create /var/lib/libvirt/images/small.xml")
	label := do(ctx, t, m, "cat /proc/$(cat /run/libvirt/qemu/small.pid)/attr/current")
	if !strings.HasPrefix(label, "libvirt-") || !strings.HasSuffix(label, " (enforce)") {
		t.Errorf("the VM's QEMU runs under %q", label)
	}
	do(ctx, t, m, "virsh -c qemu:///system destroy small")
}

// onVolume starts a confined VM whose disk is a socket where Duet serves volumes, with Duet's package installed.
// Whether it needs the package's rule for that depends on the kernel.
func onVolume(ctx context.Context, t *testing.T, m Machine) {
	t.Helper()
	dir := t.TempDir()
	build := exec.CommandContext(ctx, "../../cmd/packaging/build.sh", "0.0.1", dir, "amd64", "deb")
	build.Env = append(os.Environ(), "BUILDFLAGS=")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build package: %v\n%s", err, out)
	}
	const xml = `<domain type='qemu'><name>volume</name><memory unit='MiB'>32</memory>` +
		`<os><type machine='pc'>hvm</type></os><devices><disk type='network' device='disk'><driver name='qemu' type='raw'/>` +
		`<source protocol='nbd'><host transport='unix' socket='/run/duet/volumes/volume-vda.sock'/></source>` +
		`<target dev='vda' bus='virtio'/></disk></devices></domain>`
	must(t, os.WriteFile(filepath.Join(dir, "volume.xml"), []byte(xml), 0o644))
	must(t, m.Push(ctx, filepath.Join(dir, "volume.xml"), "/var/lib/libvirt/images/volume.xml"))
	must(t, m.Push(ctx, filepath.Join(dir, "duet_0.0.1_amd64.deb"), "/root/duet.deb"))
	do(ctx, t, m, "dpkg -i /root/duet.deb")
	do(ctx, t, m, `set -e
		mkdir -p -m 711 /run/duet/volumes
		qemu-nbd --fork -f raw --persistent --shared=8 -k /run/duet/volumes/volume-vda.sock /var/lib/libvirt/images/small.img
		chown libvirt-qemu /run/duet/volumes/volume-vda.sock`)
	const start = "virsh -c qemu:///system create /var/lib/libvirt/images/volume.xml"
	do(ctx, t, m, start)
	label := do(ctx, t, m, "cat /proc/$(cat /run/libvirt/qemu/volume.pid)/attr/current")
	if !strings.HasSuffix(label, " (enforce)") {
		t.Errorf("QEMU runs under %q", label)
	}
	do(ctx, t, m, "virsh -c qemu:///system destroy volume")
	do(ctx, t, m, "pkill qemu-nbd")
}
