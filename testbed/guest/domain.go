package guest

import (
	"cmp"
	"encoding/xml"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"text/template"
)

// Files are what QEMU needs to boot the guest.
type Files struct {
	Kernel string // path of the kernel image
	Initrd string // path of the initramfs; "" if it needs none
}

// CopyTo copies the files into a folder that the user can reach whom QEMU runs as, which the cache of root is
// not. Files that are there are written over. A kernel and an initramfs of one name would be one file.
func (f Files) CopyTo(dir string) (Files, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return Files{}, fmt.Errorf("copy guest: %w", err)
	}
	var out Files
	for from, to := range map[string]*string{f.Kernel: &out.Kernel, f.Initrd: &out.Initrd} {
		if from == "" {
			continue
		}
		b, err := os.ReadFile(from)
		*to = filepath.Join(dir, filepath.Base(from))
		if err == nil {
			err = os.WriteFile(*to, b, 0o644)
		}
		if err != nil {
			return Files{}, fmt.Errorf("copy guest: %w", err)
		}
	}
	return out, nil
}

// ErrNoKernel is returned by Build when Debian's kernel is neither in the cache nor to be had: a reason to skip a test,
// as opposed to a guest program that does not compile.
var ErrNoKernel = errors.New("no kernel for the guest")

// Domain describes a test VM for libvirt. Name, Console and a disk are needed.
type Domain struct {
	Name      string
	UUID      string // "" lets libvirt choose; two nodes that define the same VM must give the same
	Files     Files
	Disks     []Disk // the first one is /dev/vda, on which the guest writes
	Console   string // file to which the serial console is appended, also by another host: nobody's ownership is set
	MemoryMiB int    // 0 = 128
	Mode      string // "" = writer; or idle, poweroff-after=N, panic-after=N
	Rate      int    // records per second; 0 = 50, -1 = as fast as the disk answers
	Flush     int    // records per flush; 0 = 10, -1 = never
	Network   *NIC   // nil: none
	OnCrash   string // what libvirt does after a panic; "" = preserve, which leaves the VM CRASHED (PANICKED)
}

// NIC is a network card. The guest says hello to everybody ten times a second and answers each datagram to UDP port 7
// with the number of its boot.
type NIC struct {
	Bridge  string       // of the host
	MAC     string       // two nodes that define the same VM must give the same
	Address netip.Prefix // of the guest
}

// Disk is one raw disk; exactly one of File, Block and Socket is set.
type Disk struct {
	File   string // an image
	Block  string // a block device
	Socket string // the unix socket of an NBD server
	Export string // its export
}

// kernelLine makes the boot short on an emulated CPU: nothing is probed twice and nothing is hardened. panic=0
// keeps a kernel that has panicked where it is, so that the panic device and on_crash decide.
const kernelLine = "console=ttyS0,115200 quiet panic=0 mitigations=off nokaslr no_timer_check tsc=reliable audit=0 " +
	"nmi_watchdog=0 rcupdate.rcu_expedited=1 ipv6.disable=1 transparent_hugepage=never cryptomgr.notests i8042.noaux"

// A VM on an NBD disk pauses when its server fails, and goes on when told to: the guest must never see an error.
const domainXML = `<domain type='qemu'>
  <name>{{.Name | xml}}</name>
{{- with .UUID}}
  <uuid>{{. | xml}}</uuid>
{{- end}}
  <memory unit='MiB'>{{.MemoryMiB}}</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='pc'>hvm</type>
    <kernel>{{.Files.Kernel | xml}}</kernel>
{{- with .Files.Initrd}}
    <initrd>{{. | xml}}</initrd>
{{- end}}
    <cmdline>{{.Cmdline | xml}}</cmdline>
  </os>
  <features><acpi/></features>
  <cpu mode='custom' match='exact' check='none'><model fallback='allow'>qemu64</model></cpu>
  <clock offset='utc'><timer name='hpet' present='no'/></clock>
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>restart</on_reboot>
  <on_crash>{{.OnCrash | xml}}</on_crash>
  <devices>
{{- range $i, $d := .Disks}}
{{- if $d.File}}
    <disk type='file' device='disk'>
      <driver name='qemu' type='raw' cache='writeback' discard='unmap'/>
      <source file='{{$d.File | xml}}'/>
{{- else if $d.Block}}
    <disk type='block' device='disk'>
      <driver name='qemu' type='raw' cache='none' discard='unmap'/>
      <source dev='{{$d.Block | xml}}'/>
{{- else}}
    <disk type='network' device='disk'>
      <driver name='qemu' type='raw' cache='none' error_policy='stop' rerror_policy='stop' discard='unmap'/>
      <source protocol='nbd' name='{{$d.Export | xml}}'><host transport='unix' socket='{{$d.Socket | xml}}'/></source>
{{- end}}
      <target dev='vd{{letter $i}}' bus='virtio'/>
    </disk>
{{- end}}
{{- with .Network}}
    <interface type='bridge'>
      <mac address='{{.MAC | xml}}'/>
      <source bridge='{{.Bridge | xml}}'/>
      <model type='virtio'/>
    </interface>
{{- end}}
    <controller type='usb' model='none'/>
    <serial type='file'>
      <source path='{{.Console | xml}}' append='on'><seclabel model='dac' relabel='no'/></source>
      <target port='0'/>
    </serial>
    <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>
    <memballoon model='none'/>
    <panic model='isa'/>
  </devices>
</domain>
`

// Cmdline returns the kernel's command line.
func (d Domain) Cmdline() string {
	line := kernelLine + " duet.mode=" + cmp.Or(d.Mode, "writer")
	if d.Rate != 0 {
		line += fmt.Sprintf(" duet.rate=%d", max(d.Rate, 0))
	}
	if d.Flush != 0 {
		line += fmt.Sprintf(" duet.flush=%d", max(d.Flush, 0))
	}
	if d.Network != nil {
		line += " duet.net=" + d.Network.Address.String()
	}
	return line
}

// XML returns the libvirt definition. It uses software emulation, which works on every computer. It opens and
// makes nothing.
func (d Domain) XML() (string, error) {
	if d.Name == "" || d.Console == "" || len(d.Disks) == 0 || len(d.Disks) > 8 {
		return "", fmt.Errorf("define VM %q: it needs a name, a console and 1 to 8 disks", d.Name)
	}
	for i, disk := range d.Disks {
		set := 0
		for _, s := range []string{disk.File, disk.Block, disk.Socket} {
			if s != "" {
				set++
			}
		}
		if set != 1 {
			return "", fmt.Errorf("define VM %s: disk %d needs exactly one of file, block device and socket", d.Name, i)
		}
	}
	d.MemoryMiB = cmp.Or(d.MemoryMiB, 128)
	d.OnCrash = cmp.Or(d.OnCrash, "preserve")
	t, err := template.New("domain").Funcs(template.FuncMap{
		"xml":    escape,
		"letter": func(i int) string { return string(rune('a' + i)) },
	}).Parse(domainXML)
	if err != nil {
		return "", fmt.Errorf("define VM %s: %w", d.Name, err)
	}
	var b strings.Builder
	if err := t.Execute(&b, d); err != nil {
		return "", fmt.Errorf("define VM %s: %w", d.Name, err)
	}
	return b.String(), nil
}

func escape(s string) (string, error) {
	var b strings.Builder
	err := xml.EscapeText(&b, []byte(s))
	return b.String(), err
}
