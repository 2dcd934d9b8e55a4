package libvirt

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"duet/vmmanager"
)

// bare is a host that has nothing of what the definitions in testdata/needs ask for.
func bare() *host {
	return &host{
		networks: map[string]hostNetwork{}, links: map[string]hostLink{}, filters: map[string]bool{},
		secrets: map[string]bool{},
		memory:  hostMemory{total: 1 << 30, free: 256 << 20}, pages: map[int64]hostPages{2 << 20: {total: 16, free: 16}},
		cpus: cpuSet{0: true, 1: true}, exists: func(string) bool { return false }, hasVolume: func(string,
			string) bool {
			return false
		},
	}
}

// rich is one that has all.
func rich(t *testing.T) *host {
	h := bare()
	h.exists, h.hasVolume = func(string) bool { return true }, func(string, string) bool { return true }
	h.networks["default"] = hostNetwork{active: true, autostart: true}
	h.networks["vagrant-libvirt"] = hostNetwork{active: true, autostart: true}
	h.networks["lan"] = hostNetwork{active: true, autostart: true, bridge: "br-lan", portgroups: []string{"dmz"}}
	for _, name := range []string{"br0", "br-lan", "br-vm", "ovsbr0"} {
		h.links[name] = hostLink{up: true, bridge: true}
	}
	h.links["enp3s0"], h.links["tap-build"] = hostLink{up: true}, hostLink{}
	h.filters["clean-traffic"] = true
	h.memory = hostMemory{total: 1 << 40, free: 1 << 39}
	h.pages = map[int64]hostPages{2 << 20: {1 << 20, 1 << 20}, 1 << 30: {64, 64}}
	var ok bool
	if h.cpus, ok = parseCPUs("0-31"); !ok {
		t.Fatal("no CPUs")
	}
	return h
}

func needsOf(t *testing.T, text []byte) []need {
	t.Helper()
	domain, err := parseXML(text)
	if err != nil {
		t.Fatal(err)
	}
	return needs(domain)
}

// lines writes findings one a line, to compare and to read.
func lines(all []vmmanager.Finding) string {
	var b strings.Builder
	for _, f := range all {
		fmt.Fprintf(&b, "%s %s: %s\n", f.Level, f.Code, f.Whole())
	}
	return b.String()
}

// TestNeedsGolden judges definitions as other people write them on a host that has nothing
// of what they ask for, and on one that has all.
func TestNeedsGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/needs/*.xml")
	if err != nil || len(files) == 0 {
		t.Fatal("no test data", err)
	}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		all := needsOf(t, text)
		got := lines(judge(all, bare()))
		golden := strings.TrimSuffix(name, ".xml") + ".txt"
		if *update {
			if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil || got != string(want) {
			t.Errorf("%s differs (-update rewrites it), %v:\n%s", golden, err, got)
		}
		for _, f := range judge(all, rich(t)) {
			if f.Level != vmmanager.Note && f.Code != "argument-drive" {
				t.Errorf("%s on a host that has all: %s", name, lines([]vmmanager.Finding{f}))
			}
		}
	}
}

// TestVerdicts: each need on hosts that lack it, or have it otherwise than the VM wants.
func TestVerdicts(t *testing.T) {
	nets := map[string]hostNetwork{"off": {}, "hand": {active: true}, "host": {active: true, autostart: true,
		bridge: "br9"},
		"plain": {active: true, autostart: true}}
	h := &host{
		vms: []hostVM{{name: "old", uuid: "aa"}, {name: "web", uuid: "bb"}, {name: "busy", uuid: "cc",
			running: true}},
		networks: nets, links: map[string]hostLink{"eth0": {up: true}, "br1": {bridge: true}},
		filters: map[string]bool{}, secrets: map[string]bool{},
		sockets: parseSockets("tcp", strings.NewReader(procTCP)), memory: hostMemory{total: 4 << 30, swap: 1 << 30,
			free: 1 << 30, page: 2 << 20},
		pages: map[int64]hostPages{2 << 20: {total: 512, free: 100}}, cpus: cpuSet{0: true, 1: true},
		exists: func(p string) bool { return strings.HasPrefix(p, "/have") }, hasVolume: func(_,
			v string) bool {
			return v == "have"
		},
	}
	for _, c := range []struct {
		need need
		want string // level and code; empty: nothing
	}{
		{identity{"web", "aa"}, "refused uuid-taken"},
		{identity{"web", "bb"}, ""},
		{identity{"web", "dd"}, "warning name-taken"},
		{identity{"new", ""}, ""},
		{memory{1 << 30}, ""},
		{memory{2 << 30}, "warning memory-short"},
		{memory{5<<30 + 1}, "refused memory-short"},
		{hugePages{200 << 20, 0}, ""},
		{hugePages{202 << 20, 2 << 20}, "warning hugepages-short"},
		{hugePages{2 << 30, 2 << 20}, "refused hugepages-short"},
		{hugePages{1 << 30, 1 << 30}, "refused hugepages-missing"},
		{pinning{"vcpu", "0-1"}, ""},
		{pinning{"vcpu", "0-3,^2"}, "warning cpu-missing"},
		{pinning{"vcpu", "8-9"}, "refused cpu-missing"},
		{pinning{"vcpu", "rubbish"}, ""},
		{file{"kernel", "/have", ""}, ""},
		{file{"kernel", "/no", ""}, "refused file-missing"},
		{folder{"serial 1", "/have/log"}, ""},
		{folder{"serial 1", "/no/log"}, "refused folder-missing"},
		{peerSocket{"interface 1", "/no"}, "warning socket-missing"},
		{nvramTemplate{"/no", "/have/vars"}, ""},
		{nvramTemplate{"/no", "/no/vars"}, "refused file-missing"},
		{nvramTemplate{"/have", "/no/vars"}, ""},
		{medium{about: "cdrom sda", path: "/have"}, ""},
		{medium{about: "cdrom sda", path: "/no"}, "warning medium-missing"},
		{medium{about: "cdrom sda", path: "/no", policy: "optional"}, "warning medium-missing"},
		{medium{about: "cdrom sda", path: "/no", policy: "requisite"}, "refused medium-missing"},
		{medium{about: "cdrom sda", pool: "iso", volume: "have"}, ""},
		{medium{about: "cdrom sda", pool: "iso", volume: "no"}, "warning medium-missing"},
		{network{"interface 1", "plain", ""}, ""},
		{network{"interface 1", "none", ""}, "refused network-missing"},
		{network{"interface 1", "off", ""}, "refused network-inactive"},
		{network{"interface 1", "hand", ""}, "warning network-autostart"},
		{network{"interface 1", "host", ""}, "refused bridge-missing"},
		{network{"interface 1", "plain", "dmz"}, "warning portgroup-missing"},
		{link{"interface 1", "br9", onBridge, false}, "refused bridge-missing"},
		{link{"interface 1", "br9", onBridge, true}, "warning bridge-missing"},
		{link{"interface 1", "eth0", onBridge, false}, "refused bridge-missing"},
		{link{"interface 1", "br1", onBridge, false}, "warning link-down"},
		{link{"interface 1", "eth0", onDevice, false}, ""},
		{link{"interface 1", "eth9", onDevice, false}, "refused link-missing"},
		{filter{"interface 1", "x"}, "refused filter-missing"},
		{secret{"tpm 1", "x"}, "refused secret-missing"},
		{port{"vnc display", "tcp", "0.0.0.0", 5900}, "refused port-used"},    // somebody has 127.0.0.1:5900
		{port{"vnc display", "tcp", "127.0.0.2", 5900}, ""},                   // not that address
		{port{"vnc display", "tcp", "192.0.2.1", 22}, "refused port-used"},    // somebody has 0.0.0.0:22
		{port{"vnc display", "tcp", "::", 80}, "refused port-used"},           // and [::1]:80
		{port{"vnc display", "tcp", "127.0.0.1", 40000}, ""},                  // a connection, no listener
		{port{"vnc display", "udp", "127.0.0.1", 5900}, ""},                   // another protocol
		{port{"vnc display", "tcp", "host.example", 22}, "refused port-used"}, // an address that only libvirt can read
		{argument{"/no"}, "warning file-missing"},
		{argument{"/have"}, ""},
	} {
		got := ""
		for _, f := range c.need.of(h) {
			got += string(f.Level) + " " + f.Code
			if f.Fact == "" || f.Level != vmmanager.Note && f.Remedy == "" {
				t.Errorf("%+v: no words or no remedy: %+v", c.need, f)
			}
		}
		if got != c.want {
			t.Errorf("%#v: %q, want %q", c.need, got, c.want)
		}
	}
	// What a VM has taken itself does not count while it runs here.
	mine := []need{identity{"busy", "cc"}, memory{64 << 30}, port{"vnc display", "tcp", "127.0.0.1", 5900}}
	if found := judge(mine, h); len(found) != 0 {
		t.Errorf("of a VM that runs here: %s", lines(found))
	}
	// A host of which nothing is known is not blamed for it.
	unknown := &host{exists: func(string) bool { return true }}
	for _, n := range []need{network{"i", "x", ""}, link{"i", "x", onBridge, false}, filter{"i", "x"}, secret{"t", "x"},
		memory{1 << 40},
		hugePages{1 << 30, 0}, pinning{"vcpu", "9"}, medium{about: "c", pool: "p", volume: "v"}} {
		if found := n.of(unknown); len(found) != 0 {
			t.Errorf("%#v on a host of which nothing is known: %s", n, lines(found))
		}
	}
}

// procTCP is a table of the kernel: listeners at 127.0.0.1:5900, 0.0.0.0:22, a connection
// from port 40000, and, of the IPv6 one, a listener at [::1]:80.
const procTCP = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid
   0: 0100007F:170C 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0
   1: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0
   2: 0100007F:9C40 0100007F:170C 01 00000000:00000000 00:00000000 00000000     0
   3: 00000000000000000000000001000000:0050 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000
`

func TestParseCPUs(t *testing.T) {
	for text, want := range map[string]string{"0-3": "0 1 2 3", "0-3,^2": "0 1 3", "^1,0-1,8": "0 8", "5": "5",
		"0-1\n": "0 1"} {
		set, ok := parseCPUs(text)
		var got []string
		for cpu := range 64 {
			if set[cpu] {
				got = append(got, fmt.Sprint(cpu))
			}
		}
		if !ok || strings.Join(got, " ") != want {
			t.Errorf("%q: %v, want %s", text, got, want)
		}
	}
	for _, bad := range []string{"", "a", "3-1", "-1", "0-99999999999", "0-999999999", "^0"} {
		if set, ok := parseCPUs(bad); ok {
			t.Errorf("%q was taken as %v", bad, set)
		}
	}
}

func TestParseMemory(t *testing.T) {
	m := parseMemory(strings.NewReader("MemTotal:  2048 kB\nMemFree: 1 kB\nMemAvailable: 1024 kB\nSwapTotal: 512 " +
		"kB\nHugePages_Total: 3\nHugepagesize: 2048 kB\nodd\n"))
	if m != (hostMemory{total: 2 << 20, swap: 512 << 10, free: 1 << 20, page: 2 << 20}) {
		t.Errorf("%+v", m)
	}
}

// TestLocalHost: this computer is read at all.
func TestLocalHost(t *testing.T) {
	h := localHost()
	if h.memory.total == 0 || !h.cpus[0] && len(h.cpus) == 0 || !h.links["lo"].up || !h.exists("/") ||
		h.exists("/nonexistent") {
		t.Errorf("%+v", h)
	}
}

// TestObstacles: every disk and device that keeps a VM from being protected is named, with its kind.
func TestObstacles(t *testing.T) {
	const text = `<domain><name>x</name><devices>
	  <disk type='network'><source protocol='rbd' name='pool/image'/><target dev='vda'/></disk>
	  <disk type='file'><source file='/a'/><shareable/><target dev='vdb'/></disk>
	  <disk type='file' device='cdrom'><source file='/iso'/><target dev='sda'/><readonly/></disk>
	  <hostdev type='pci' mode='subsystem'/><hostdev type='usb' mode='subsystem'><source/></hostdev>
	  <filesystem type='mount'><driver type='virtiofs'/><source dir='/srv/share'/><target dir='s'/></filesystem>
	</devices></domain>`
	domain, err := parseXML([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	sizes := []vmmanager.Disk{{Target: "vdc", Path: "/img/odd.raw", Format: "raw", Size: 1000}, {Target: "vdd",
		Path: "/img/empty.raw", Format: "raw"},
		{Target: "vde", Path: "/dev/vg0/none", Format: "raw", Block: true}, {Target: "vdf", Path: "/img/good.raw",
			Format: "raw", Size: 4096}}
	got := lines(obstacles(domain, sizes))
	for _, want := range []string{
		"disk vda: it is on a network already (rbd)", "disk vdb: it is shared", "hostdev 1: a pci device",
		"hostdev 2: a usb device",
		`filesystem 1: the guest shares the directory "/srv/share"`, "`qemu-img resize -f raw /img/odd.raw 1024`",
		"/img/empty.raw has 0 bytes",
		"/dev/vg0/none has no size",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	if n := strings.Count(got, "refused "); n != 8 {
		t.Errorf("%d obstacles, want 8:\n%s", n, got)
	}
	if empty, err := parseXML([]byte("<domain><devices/></domain>")); err != nil ||
		!strings.Contains(lines(obstacles(empty, nil)), "no hard disk") {
		t.Error("a VM without disks can be protected", err)
	}
}

// TestLoosen: only what is missing and of which nothing is said becomes optional.
func TestLoosen(t *testing.T) {
	const text = `<domain><devices>
  <disk type='file' device='cdrom'><source file='/no.iso'/><target dev='sda'/></disk>
  <disk type='file' device='cdrom'><source file='/have.iso'/><target dev='sdb'/></disk>
  <disk type='file' device='cdrom'><source file='/no2.iso' startupPolicy='requisite'/><target dev='sdc'/></disk>
  <disk type='block' device='floppy'><source dev='/no'></source><target dev='fda'/></disk>
  <disk type='file' device='cdrom'><target dev='sdd'/></disk>
  <disk type='file'><source file='/no.raw'/><target dev='vda'/></disk>
</devices></domain>`
	h := &host{exists: func(p string) bool { return p == "/have.iso" }}
	got, empty, err := loosen([]byte(text), h)
	want := strings.NewReplacer("'/no.iso'/>", "'/no.iso' startupPolicy='optional'/>", "dev='/no'>",
		"dev='/no' startupPolicy='optional'>").Replace(text)
	if err != nil || string(got) != want || !slices.Equal(empty, []string{"cdrom sda", "floppy fda"}) {
		t.Errorf("%v %v\n%s", err, empty, got)
	}
	if again, empty, err := loosen(got, h); err != nil || len(empty) != 0 || string(again) != want {
		t.Errorf("loosened twice: %v %v\n%s", err, empty, again)
	}
}

// TestDryText: interfaces need no device of the host, and drives are empty.
func TestDryText(t *testing.T) {
	const text = `<domain><devices>
  <disk type='volume' device='cdrom'><source pool='p' volume='v'/><backingStore/><target dev='sda'/></disk>
  <interface type='bridge' trustGuestRxFilters='yes'><mac address='52:54:00:00:00:01'/><source bridge='br0'/><virtualport type='openvswitch'/>
    <bandwidth><inbound average='1'/></bandwidth><model type='virtio'/><address type='pci' slot='3'/></interface>
</devices></domain>`
	got, err := dryText([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	for _, gone := range []string{"br0", "openvswitch", "bandwidth", "volume=", "backingStore", "trustGuest"} {
		if strings.Contains(string(got), gone) {
			t.Errorf("%s is left:\n%s", gone, got)
		}
	}
	for _, kept := range []string{"type='user'", "52:54:00:00:00:01", "slot='3'", "model type='virtio'", "dev='sda'"} {
		if !strings.Contains(string(got), kept) {
			t.Errorf("%s is gone:\n%s", kept, got)
		}
	}
}

// TestRefusedDry: what libvirt says gets a code that stays and a remedy.
func TestRefusedDry(t *testing.T) {
	for said, want := range map[string]string{
		"Cannot check QEMU binary /usr/bin/qemu-x: No such file or " +
			"directory": "emulator-missing",
		"unsupported configuration: No emulator found for arch " +
			"'sparc64'": "emulator-missing",
		"unsupported configuration: Emulator '/usr/bin/qemu-system-x86_64' does not support machine type " +
			"'pc-q35-99.9'": "machine-missing",
		"the CPU is incompatible with host CPU: Host CPU does not provide required features: " +
			"hle": "cpu-missing",
		"operation failed: Unable to find any firmware to satisfy " +
			"'efi'": "firmware-missing",
		"unsupported configuration: TPM version '2.0' is not " +
			"supported": "tpm-missing",
		"internal error: hugetlbfs filesystem is not mounted or disabled by administrator " +
			"config": "hugepages-missing",
		"XML document failed to validate against schema: Unable to validate doc against " +
			"/usr/share/libvirt/schemas/domain.rng": "definition-unknown",
	} {
		f := refusedDry(said, false)
		if f.Code != want || f.Level != vmmanager.Refused || f.Remedy == "" || strings.HasPrefix(f.Fact,
			"unsupported configuration") {
			t.Errorf("%s: %+v, want %s", said, f, want)
		}
	}
	if f := refusedDry("something new", false); f.Level != vmmanager.Warning {
		t.Errorf("an unknown doubt: %+v", f)
	}
	if f := refusedDry("something new", true); f.Level != vmmanager.Refused {
		t.Errorf("an unknown refusal: %+v", f)
	}
}

func TestNetworkOf(t *testing.T) {
	bridge, groups,
		err := networkOf([]byte("<network><name>lan</name><forward mode='bridge'/><bridge name='br0'/><portgroup " +
		"name='a'/><portgroup name='b'/></network>"))
	if err != nil || bridge != "br0" || !slices.Equal(groups, []string{"a", "b"}) {
		t.Errorf("%q %q %v", bridge, groups, err)
	}
	for _, own := range []string{
		"<network><name>default</name><forward mode='nat'/><bridge name='virbr0' stp='on'/></network>",
		"<network><name>ovs</name><forward mode='bridge'/><bridge name='ovsbr0'/><virtualport type='openvswitch'/></network>",
	} {
		if bridge, _, err := networkOf([]byte(own)); err != nil || bridge != "" {
			t.Errorf("%s: %q %v", own, bridge, err)
		}
	}
}

// FuzzNeeds: no definition is too odd to be judged.
func FuzzNeeds(f *testing.F) {
	for _, pattern := range []string{"testdata/*.xml", "testdata/needs/*.xml"} {
		files, _ := filepath.Glob(pattern)
		for _, name := range files {
			if text, err := os.ReadFile(name); err == nil {
				f.Add(text)
			}
		}
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		domain, err := parseXML(text)
		if err != nil {
			return
		}
		judge(needs(domain), bare())
		obstacles(domain, nil)
		if dry, err := dryText(text); err != nil {
			t.Fatal(err)
		} else if _, err := parseXML(dry); err != nil {
			t.Fatalf("%v\n%s\nfrom\n%s", err, dry, text)
		}
	})
}
