//go:build linux && cgo && libvirt_dlopen

package libvirt

import (
	"fmt"
	"strings"
	"testing"

	"duet/vmmanager"
	"duet/vmmanager/vmtest"
)

// shape is a VM as other people's tools make one: what stands beside its name, and its devices. A and B are raw images.
type shape struct{ name, head, devices string }

// shapes are in the manner of virt-manager, virt-install, vagrant-libvirt, appliances, and of what the authors of
// public collections of definitions tune by hand; the passed-through devices of some are left out, for they tie a VM to
// its host.
var shapes = []shape{
	{"virt-manager-q35", q35, `<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='A'/>
		<target dev='vda' bus='virtio'/></disk>` + cdrom},
	{"virt-manager-discard", q35, `<disk type='file' device='disk'><driver name='qemu' type='raw' discard='unmap'/>
		<source file='A'/><target dev='vda' bus='virtio'/><boot order='1'/></disk>`},
	{"virt-install-i440fx", pc, `<disk type='file'><source file='A'/><target dev='vda' bus='virtio'/></disk>`},
	{"virt-install-ide", pc, `<disk type='file' device='disk'><driver name='qemu' type='raw' cache='none' io='native'/>
		<source file='A'/><target dev='hda' bus='ide'/></disk>` + cdrom},
	{"vagrant-two-disks", pc, `<disk type='file' device='disk'><alias name='ua-box-volume-0'/>
		<driver name='qemu' type='raw' cache='default'/><source file='A'/><target dev='vda' bus='virtio'/></disk>
		<disk type='file' device='disk'><driver name='qemu' type='raw' cache='none'/><source file='B'/>
		<target dev='vdb' bus='virtio'/><serial>data-0001</serial></disk>`},
	{"vagrant-unsafe", pc, `<disk type='file' device='disk'><driver name='qemu' type='raw' cache='unsafe' discard='unmap'/>
		<source file='A'/><target dev='sda' bus='sata'/></disk>`},
	{"gaming-iothread", q35 + `<iothreads>2</iothreads><cputune><vcpupin vcpu='0' cpuset='0'/></cputune>`,
		`<disk type='file' device='disk'><driver name='qemu' type='raw' cache='none' io='threads' iothread='1' queues='2'/>
		<source file='A'/><target dev='vda' bus='virtio'/></disk>`},
	{"gaming-scsi", q35 + `<iothreads>1</iothreads>`, `<controller type='scsi' index='0' model='virtio-scsi'>
		<driver queues='2' iothread='1'/></controller>
		<disk type='file' device='disk'><driver name='qemu' type='raw' cache='writeback' discard='unmap' detect_zeroes='unmap'/>
		<source file='A'/><target dev='sda' bus='scsi'/><wwn>5000c50015ea71aa</wwn></disk>`},
	{"windows-hyperv", q35 + `<features><acpi/><apic/><hyperv mode='custom'><relaxed state='on'/><vapic state='on'/></hyperv></features>
		<clock offset='localtime'><timer name='rtc' tickpolicy='catchup'/></clock>`,
		`<disk type='file' device='disk'><driver name='qemu' type='raw' cache='directsync'/><source file='A'/>
		<target dev='sda' bus='sata'/></disk>` + cdrom},
	{"home-automation", q35, `<disk type='file' device='disk'><driver name='qemu' type='raw' cache='none' discard='unmap'/>
		<source file='A'/><target dev='sda' bus='sata' rotation_rate='1'/></disk>`},
	{"router-error-policy", pc, `<disk type='file' device='disk'>
		<driver name='qemu' type='raw' error_policy='report' rerror_policy='report'/><source file='A'/>
		<target dev='vda' bus='virtio'/></disk>`},
	{"database-iotune", pc, `<disk type='file' device='disk'><driver name='qemu' type='raw' cache='none' error_policy='enospace'/>
		<source file='A'/><target dev='vda' bus='virtio'/>
		<iotune><total_iops_sec>5000</total_iops_sec><total_bytes_sec>104857600</total_bytes_sec></iotune></disk>`},
	{"appliance-blockio", pc, `<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='A'/>
		<blockio logical_block_size='512' physical_block_size='4096'/><target dev='vda' bus='virtio'/></disk>`},
	{"usb-disk", pc, `<controller type='usb' index='0' model='qemu-xhci'/><disk type='file' device='disk'>
		<driver name='qemu' type='raw'/><source file='A'/><target dev='sda' bus='usb' removable='on'/></disk>`},
	{"labelled", pc, `<disk type='file' device='disk'><driver name='qemu' type='raw' copy_on_read='off'/>
		<source file='A' startupPolicy='mandatory'><seclabel model='dac' relabel='no'/></source>
		<target dev='vda' bus='virtio'/></disk>`},
	{"cloud-image-console", q35, `<disk type='file' device='disk'><driver name='qemu' type='raw' ats='on' packed='on'/>
		<source file='A'/><target dev='vda' bus='virtio'/></disk>
		<graphics type='vnc' port='-1' autoport='yes' listen='127.0.0.1' passwd='secret'/>`},
}

const (
	pc    = `<os><type arch='x86_64' machine='pc'>hvm</type></os>`
	q35   = `<os><type arch='x86_64' machine='q35'>hvm</type></os>`
	cdrom = `<disk type='file' device='cdrom'><driver name='qemu' type='raw'/><target dev='sdc' bus='sata'/><readonly/></disk>`
)

// testShapes: the definition of each is, after it was protected and released, what it was, byte for byte.
func (n *node) testShapes(t *testing.T) {
	for _, s := range shapes {
		t.Run(s.name, func(t *testing.T) {
			ctx := vmtest.Context(t)
			images := strings.NewReplacer("'A'", "'"+n.sparse(t, s.name+".a", 1<<20)+"'", "'B'",
				"'"+n.sparse(t, s.name+".b", 1<<20)+"'")
			text := fmt.Sprintf("<domain type='qemu'><name>%s</name><title>kept</title><memory "+
				"unit='MiB'>64</memory><vcpu>2</vcpu>%s<devices>%s</devices></domain>",
				s.name, s.head, images.Replace(s.devices))
			must(t, n.h.Define(ctx, vmmanager.Definition{Name: s.name, Text: []byte(text)}))
			t.Cleanup(func() { check(t, n.h.Undefine(vmtest.Context(t), s.name)) })
			own, err := n.h.Definition(ctx, s.name)
			must(t, err)
			if found := n.h.Obstacles(own); len(found) > 0 {
				t.Fatalf("it cannot be protected: %v", found)
			}
			var to []vmmanager.Endpoint
			for _, d := range own.Disks {
				to = append(to, vmmanager.Endpoint{Target: d.Target, Socket: d.Path + ".sock"})
			}
			rewired, err := n.h.Rewire(own, to)
			must(t, err)
			must(t, n.h.Define(ctx, rewired))
			protected, err := n.h.Definition(ctx, s.name)
			must(t, err)
			back, err := n.h.Restore(protected, own, own.Disks)
			must(t, err)
			must(t, n.h.Define(ctx, back))
			after, err := n.h.Definition(ctx, s.name)
			must(t, err)
			if string(after.Text) != string(own.Text) {
				t.Errorf("it was\n%s\nand is\n%s", own.Text, after.Text)
			}
		})
	}
}
