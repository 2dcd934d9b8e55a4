package libvirt

import (
	"bytes"
	"encoding/binary"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"libvirt.org/go/libvirtxml"

	"duet/vmmanager"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// endpointsOf returns an endpoint for each hard disk of a definition.
func endpointsOf(t *testing.T, text []byte) []vmmanager.Endpoint {
	t.Helper()
	domain, err := parseXML(text)
	if err != nil {
		t.Fatal(err)
	}
	var to []vmmanager.Endpoint
	for _, d := range disks(domain) {
		if d.device == "disk" {
			to = append(to, vmmanager.Endpoint{Target: d.target,
				Socket: "/run/duet/" + domain.child("name").text + "-" + d.target + ".sock"})
		}
	}
	return to
}

func inputs(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("testdata/*.xml")
	if err != nil || len(files) == 0 {
		t.Fatal("no test data", err)
	}
	return slices.DeleteFunc(files, func(f string) bool { return strings.Contains(f, ".want") })
}

func TestRewireGolden(t *testing.T) {
	for _, file := range inputs(t) {
		for _, reconnect := range []bool{false, true} {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			to := endpointsOf(t, text)
			got, err := rewire(text, to, reconnect)
			if err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			golden := strings.TrimSuffix(file, ".xml") + map[bool]string{false: ".want", true: ".want-reconnect"}[reconnect] +
				".xml"
			if *update {
				if err := os.WriteFile(golden, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s differs (%v):\n%s", golden, err, got)
			}
			sameButDisks(t, file, text, got)
			again, err := rewire(got, to, reconnect)
			if err != nil || !bytes.Equal(again, got) {
				t.Errorf("%s: rewiring twice changes more than once (%v):\n%s", file, err, again)
			}
		}
	}
}

// sameButDisks asks libvirt's own XML package what has changed: only the driver,
// source and backing chain of hard disks may have.
func sameButDisks(t *testing.T, file string, before, after []byte) {
	t.Helper()
	var a, b libvirtxml.Domain
	if err := errors.Join(a.Unmarshal(string(before)), b.Unmarshal(string(after))); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	for i := range b.Devices.Disks {
		d := &b.Devices.Disks[i]
		if d.Device != "" && d.Device != "disk" {
			continue
		}
		n := d.Source.Network
		if n == nil || n.Protocol != "nbd" || len(n.Hosts) != 1 || n.Hosts[0].Transport != "unix" ||
			!strings.HasSuffix(n.Hosts[0].Socket, d.Target.Dev+".sock") {
			t.Errorf("%s: disk %s is not on its endpoint", file, d.Target.Dev)
		}
		if d.Driver.ErrorPolicy != "stop" || d.Driver.RErrorPolicy != "stop" || d.Driver.Type != "raw" ||
			d.Driver.Cache != "none" {
			t.Errorf("%s: disk %s has driver %+v", file, d.Target.Dev, d.Driver)
		}
		was := a.Devices.Disks[i]
		if was.Driver != nil && (was.Driver.IOThread != nil) != (d.Driver.IOThread != nil) {
			t.Errorf("%s: disk %s lost its I/O thread", file, d.Target.Dev)
		}
		d.Driver, d.Source, d.BackingStore = was.Driver, was.Source, was.BackingStore
	}
	if a.Title == "" && b.Title != title {
		t.Errorf("%s: it does not say who manages it: %q", file, b.Title)
	}
	if b.Title == title {
		b.Title = a.Title
	}
	if !reflect.DeepEqual(a, b) {
		t.Errorf("%s: something else than disks has changed", file)
	}
}

// TestRestore: a definition that was rewired is itself again, in the eyes of libvirt's own XML package. Where the disks
// lie elsewhere now, or what they were is not known, they are where they shall be.
func TestRestore(t *testing.T) {
	for _, file := range inputs(t) {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		domain, err := parseXML(text)
		if err != nil {
			t.Fatal(err)
		}
		found := replicable(domain)
		for i := range found {
			if found[i].Path == "" {
				found[i].Path = "/pool/volume.img"
			}
		}
		rewired, err := rewire(text, endpointsOf(t, text), true)
		if err != nil {
			t.Fatal(err)
		}
		own := vmmanager.Definition{Text: text, Disks: found}
		for _, from := range [][]byte{rewired, text} {
			back, err := restore(from, own, found)
			if err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			itself(t, file, text, back)
		}
		moved := slices.Clone(found)
		for i := range moved {
			moved[i].Path, moved[i].Format, moved[i].Block = "/elsewhere/"+moved[i].Target, "raw", false
		}
		for _, own := range []vmmanager.Definition{own, {}} {
			back, err := restore(rewired, own, moved)
			if err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			domain, err := parseXML(back)
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range moved {
				d, ok := findDisk(domain, want.Target)
				stops := d.child("driver").attr("rerror_policy") == "stop"
				if !ok || d.path() != want.Path || d.format != want.Format || len(own.Text) == 0 && !stops {
					t.Errorf("%s: disk %s was not restored:\n%s", file, want.Target, back)
				}
			}
		}
	}
	for _, target := range []string{"vda"} {
		_, err := restore([]byte("<domain/>"), vmmanager.Definition{}, []vmmanager.Disk{{Target: target}})
		if !errors.Is(err, vmmanager.ErrUnsupported) {
			t.Errorf("a missing disk was restored: %v", err)
		}
	}
}

// itself fails the test unless both texts say the same of hard disks that are files, devices or volumes.
func itself(t *testing.T, file string, want, got []byte) {
	t.Helper()
	var a, b libvirtxml.Domain
	if err := errors.Join(a.Unmarshal(string(want)), b.Unmarshal(string(got))); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	for _, all := range [][]libvirtxml.DomainDisk{a.Devices.Disks, b.Devices.Disks} {
		for i := range all { // what libvirt itself fills in
			if all[i].Driver == nil {
				all[i].Driver = &libvirtxml.DomainDiskDriver{Type: "raw"}
			}
			all[i].Driver.Name = "qemu"
		}
	}
	for i, d := range a.Devices.Disks {
		if d.Source != nil && d.Source.Network != nil {
			b.Devices.Disks[i] = d // an endpoint has nothing to go back to
		}
	}
	if !reflect.DeepEqual(a, b) {
		t.Errorf("%s: it is not what it was:\n%s", file, got)
	}
}

// TestHarden: disks pause the VM on errors, and nothing else changes.
func TestHarden(t *testing.T) {
	disk := func(driver string) []byte {
		return []byte("<domain><devices><disk type='file'>" + driver +
			"<source file='/a'/><target dev='vda'/></disk></devices></domain>")
	}
	for driver, want := range map[string]string{
		"":                       "<driver name='qemu' type='raw' error_policy='stop' rerror_policy='stop'/>",
		"<driver type='qcow2'/>": "<driver type='qcow2' error_policy='stop' rerror_policy='stop'/>",
		"<driver rerror_policy='stop' error_policy='stop' io='native'/>": "<driver rerror_policy='stop' " +
			"error_policy='stop' io='native'/>",
	} {
		got, err := harden(disk(driver), []string{"vda"})
		if err != nil || !bytes.Equal(got, disk(want)) {
			t.Errorf("%q became %s (%v)", driver, got, err)
		}
	}
	if _, err := harden(disk(""), []string{"vdb"}); !errors.Is(err, vmmanager.ErrUnsupported) {
		t.Errorf("a missing disk was hardened: %v", err)
	}
}

// TestStrays: disks that are not on their volume are told apart from those that have none.
func TestStrays(t *testing.T) {
	const onVolume = "<disk type='network'><source protocol='nbd'><host transport='unix' socket='/s'/></source><target " +
		"dev='vda'/></disk>"
	const layers = `<disk type='file'><source file='/two'/>
		<backingStore type='file'><source file='/one'/>
			<backingStore type='network'><source protocol='nbd'><host transport='unix' socket='/s'/></source><backingStore/></backingStore>
		</backingStore><target dev='vda'/></disk>`
	for devices, want := range map[string][]vmmanager.Stray{
		onVolume: nil,
		layers:   {{Target: "vda", On: "/two", Above: true}},
		"<disk type='file'><source file='/a'/><target dev='vda'/></disk>": {{Target: "vda", On: "/a"}},
		"": {{Target: "vda"}},
		onVolume + "<disk type='block'><source dev='/dev/x'/><target dev='vdb'/></disk>": {
			{Target: "vdb", On: "/dev/x", Extra: true}},
		onVolume + "<disk type='network'><source protocol='rbd' name='p/v'/><target dev='vdb'/></disk>": {
			{Target: "vdb", On: "rbd p/v", Extra: true}},
		onVolume + "<disk type='file' device='cdrom'><source file='/iso'/><target dev='sda'/></disk>": nil,
		onVolume + "<disk type='volume' device='lun'><source pool='p' volume='v'/><target dev='sdb'/></disk>": {
			{Target: "sdb", On: "volume v of pool p", Extra: true}},
	} {
		domain, err := parseXML([]byte("<domain><devices>" + devices + "</devices></domain>"))
		if err != nil {
			t.Fatal(err)
		}
		if got := strays(domain, []vmmanager.Endpoint{{Target: "vda", Socket: "/s"}}); !slices.Equal(got, want) {
			t.Errorf("%s:\n  %+v, want %+v", devices, got, want)
		}
	}
}

func TestRefusals(t *testing.T) {
	const target = "<target dev='vda'/>"
	file := func(inside string) string {
		return "<disk type='file' device='disk'><source file='/a'/>" + target + inside + "</disk>"
	}
	for _, c := range []struct{ devices, names, remedy string }{
		{file("<shareable/>"), "disk vda", "shareable"},
		{file("<readonly/>"), "disk vda", "cdrom"},
		{file("<transient/>"), "disk vda", "transient"},
		{file("<encryption format='luks'/>"), "disk vda", "unencrypted"},
		{"<disk type='file'><source file='/a'><encryption format='luks'/></source>" + target + "</disk>", "disk vda",
			"unencrypted"},
		{"<disk type='network'><source protocol='rbd' name='p/v'/>" + target + "</disk>", "disk vda", "local file"},
		{"<disk type='network'><source protocol='nbd'><host name='h' port='1'/></source>" + target + "</disk>", "disk vda",
			"local file"},
		{"<disk type='block' device='lun'><source dev='/dev/sg1'/>" + target + "</disk>", "disk vda", "device='disk'"},
		{"<disk type='dir'><source dir='/a'/>" + target + "</disk>", "disk vda", "local file"},
		{"<disk type='vhostuser'><source type='unix' path='/a'/>" + target + "</disk>", "disk vda", "local file"},
		{"<disk type='file'>" + target + "</disk>", "disk vda", "give it a file"},
		{"<disk type='file' device='cdrom'><source file='/a'/>" + target + "</disk>", "disk vda", "hard disks"},
		{file("") + "<disk type='file'><source file='/b'/><target dev='vdb'/></disk>", "disk vdb",
			"vdb --config` takes it off"},
		{"", "disk vda", "no such disk"},
		{file("") + "<hostdev type='pci' mode='subsystem'/>", "pci", "remove it"},
		{file("") + "<hostdev type='usb' mode='subsystem'><source/></hostdev>", "usb", "startupPolicy"},
		{file("") + "<interface type='hostdev'/>", "network device", "bridge"},
		{file("") + "<filesystem type='mount'><source dir='/srv/x'/></filesystem>", "/srv/x", "remove it"},
		{file("") + "<memory model='nvdimm'/>", "nvdimm", "remove it"},
	} {
		text := "<domain><devices>" + c.devices + "</devices></domain>"
		_, err := rewire([]byte(text), []vmmanager.Endpoint{{Target: "vda", Socket: "/s"}}, false)
		if !errors.Is(err, vmmanager.ErrUnsupported) || !strings.Contains(err.Error(), c.names) ||
			!strings.Contains(err.Error(), c.remedy) {
			t.Errorf("%s:\n  error %v, want ErrUnsupported with %q and %q", c.devices, err, c.names, c.remedy)
		}
	}
	for _, ok := range []string{
		"<hostdev type='usb' mode='subsystem'><source startupPolicy='optional'/></hostdev>",
		"<filesystem type='mount'><source dir='/srv/x'/><readonly/></filesystem>",
		"<disk type='file' device='cdrom'><source file='/iso'/><target dev='hda'/><readonly/></disk>",
	} {
		text := "<domain><devices>" + file("") + ok + "</devices></domain>"
		if _, err := rewire([]byte(text), []vmmanager.Endpoint{{Target: "vda", Socket: "/s"}}, false); err != nil {
			t.Errorf("%s: %v", ok, err)
		}
	}
	two := []vmmanager.Endpoint{{Target: "vda", Socket: "/s"}, {Target: "vda", Socket: "/t"}}
	_, err := rewire([]byte("<domain><devices>"+file("")+"</devices></domain>"), two, false)
	if !errors.Is(err, vmmanager.ErrUnsupported) {
		t.Errorf("two endpoints for one disk: %v", err)
	}
}

func TestParseXML(t *testing.T) {
	for _, bad := range []string{"", "<a>", "<a></b>", "</a>", "<a/><b/>", "<a b></a>", "<a>&nope;</a>", "text"} {
		if _, err := parseXML([]byte(bad)); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

// FuzzRewire: what comes out parses again, has each disk on its endpoint, and names no file of them.
func FuzzRewire(f *testing.F) {
	files, _ := filepath.Glob("testdata/*.xml")
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		domain, err := parseXML(text)
		if err != nil {
			return
		}
		var to []vmmanager.Endpoint
		for _, d := range replicable(domain) {
			to = append(to, vmmanager.Endpoint{Target: d.Target, Socket: "/s"})
		}
		out, err := rewire(text, to, true)
		if err != nil {
			return
		}
		after, err := parseXML(out)
		if err != nil {
			t.Fatalf("output does not parse: %v\n%s\nfrom\n%s", err, out, text)
		}
		for _, e := range to {
			if d, ok := findDisk(after, e.Target); !ok || d.socket() != e.Socket {
				t.Fatalf("disk %q is not on its endpoint:\n%s\nfrom\n%s", e.Target, out, text)
			}
		}
	})
}

func TestImageSize(t *testing.T) {
	dir := t.TempDir()
	raw, qcow2, short := filepath.Join(dir, "raw"), filepath.Join(dir, "qcow2"), filepath.Join(dir, "short")
	head := make([]byte, 104)
	binary.BigEndian.PutUint32(head, qcow2Magic)
	binary.BigEndian.PutUint64(head[24:], 12345)
	for path, data := range map[string][]byte{raw: make([]byte, 777), qcow2: head, short: head[:10]} {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		path, format string
		want         int64
	}{{raw, "raw", 777}, {qcow2, "qcow2", 12345}} {
		if got, err := imageSize(c.path, c.format); err != nil || got != c.want {
			t.Errorf("%s: %d, %v; want %d", c.path, got, err, c.want)
		}
	}
	for _, c := range [][2]string{{raw, "qcow2"}, {short, "qcow2"}, {raw, "vmdk"}, {filepath.Join(dir, "none"), "raw"}} {
		if got, err := imageSize(c[0], c[1]); err == nil {
			t.Errorf("%s as %s: %d", c[0], c[1], got)
		}
	}
}

func FuzzQcow2Size(f *testing.F) {
	f.Add([]byte("QFI\xfb"))
	f.Add(append([]byte("QFI\xfb"), make([]byte, 28)...))
	f.Fuzz(func(t *testing.T, head []byte) {
		if size, err := qcow2Size(head); err == nil && size < 0 {
			t.Errorf("size %d", size)
		}
	})
}
