package appmodules

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// KindMirror is an application: directories on a replicated volume, addresses, and what runs on them.
const KindMirror Kind = "mirror"

// Application is the Spec of a module of KindMirror. Its parts are brought up in the order of the fields and taken down
// the other way round.
type Application struct {
	FileSystem  string   // of the volume: one of FileSystems
	Directories []string // that lie on the volume, by their whole paths; the same on both nodes
	Addresses   []netip.Prefix
	Run         []Part
	Disks       []Volume // written by `duet module install`, not by hand; one, or none without directories
}

// Part is one thing that runs: a pair of shell commands.
type Part struct {
	Name string `yaml:"name" json:"name"`
	// Start and Stop are given to /bin/sh. Both return when it is done, and are run again where that was cut off.
	Start string `yaml:"start" json:"start"`
	Stop  string `yaml:"stop" json:"stop"`
	// Timeout is what each may take; 0: PartTime.
	Timeout Duration `yaml:"timeout,omitempty" json:"timeout,omitempty"`
}

// PartTime is what a start or a stop of a Part may take unless it says so itself.
const PartTime = 5 * time.Minute

// Limit is what its start or stop may take.
func (p Part) Limit() time.Duration { return cmp.Or(time.Duration(p.Timeout), PartTime) }

// FileSystems are what volumes of applications may have; the first is the default.
var FileSystems = []string{"ext4", "xfs"}

// Volumes are the volumes of the application.
func (a Application) Volumes() []Volume { return a.Disks }

// On is the same application on other volumes.
func (a Application) On(volumes []Volume) Spec {
	a.Disks = volumes
	return a
}

// Subject is empty: an application has no name but the module's.
func (a Application) Subject() string { return "" }

var partName = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,38}$`)

// Validate lists every fault.
func (a Application) Validate(nodes []string) []Fault {
	var f faults
	if len(nodes) != 2 || nodes[0] == nodes[1] || slices.Contains(nodes, "") {
		f.add("nodes", "a %s module needs two different nodes", KindMirror)
	}
	if text := notOneOf(a.FileSystem, FileSystems); text != "" {
		f.add("mirror.filesystem", "%s", text)
	}
	if len(a.Directories)+len(a.Addresses)+len(a.Run) == 0 {
		f.add("mirror", "has nothing to run: name directories, addresses or run")
	}
	a.validateDirectories(&f)
	seen := map[netip.Addr]bool{}
	for i, p := range a.Addresses {
		at := fmt.Sprintf("mirror.addresses[%d]", i)
		switch addr := p.Addr(); {
		case !p.IsValid():
			f.add(at, "is no address with its network, such as 192.168.7.50/24")
		case seen[addr]:
			f.add(at, "%s is there twice", addr)
		case addr.IsLoopback() || addr.IsMulticast() || addr.IsUnspecified() || addr.Zone() != "" ||
			addr.IsLinkLocalUnicast():
			f.add(at, "%s is no address that clients could use from elsewhere", addr)
		case addr.Is4In6():
			f.add(at, "write it as %s", addr.Unmap())
		case p.IsSingleIP() || p.Bits() == 0:
			f.add(at, "%s says no network: write it such as %s/24", p, addr)
		case addr == p.Masked().Addr() && p.Bits() < addr.BitLen()-1:
			f.add(at, "%s is the network itself", p)
		default:
			seen[addr] = true
		}
	}
	names := map[string]bool{}
	for i, p := range a.Run {
		at := fmt.Sprintf("mirror.run[%d]", i)
		p.validate(&f, at)
		if names[p.Name] {
			f.add(at+".name", "%s is there twice", p.Name)
		}
		names[p.Name] = true
	}
	if len(a.Disks) > 1 || len(a.Disks) == 1 && len(a.Directories) == 0 {
		f.add("volumes", "an application with directories has one volume, and one without has none")
	}
	return append(f, validateVolumes(a.Disks, nodes)...)
}

func (a Application) validateDirectories(f *faults) {
	for i, dir := range a.Directories {
		at := fmt.Sprintf("mirror.directories[%d]", i)
		switch {
		case !filepath.IsAbs(dir) || filepath.Clean(dir) != dir:
			f.add(at, "%q is no whole path such as /srv/files", dir)
		case strings.ContainsFunc(dir, func(r rune) bool { return r < ' ' || r == 0x7f || r == 0xfffd }):
			f.add(at, "%q has bytes in it that are no text", dir)
		case slices.Contains(systemDirectories, dir):
			f.add(at, "%s belongs to the system: name a directory of the application", dir)
		case slices.ContainsFunc(passing, func(o string) bool { return within(dir, o) }):
			f.add(at, "%s is the kernel's, or gone after a reboot: name a directory on a disk", dir)
		}
		for j, other := range a.Directories[:i] {
			if within(dir, other) || within(other, dir) {
				f.add(at, "%s and mirror.directories[%d] lie in each other", dir, j)
			}
		}
	}
}

// Shares is a directory or an address that both would have, in words; empty: nothing.
func (a Application) Shares(o Application) string {
	for _, mine := range a.Directories {
		for _, theirs := range o.Directories {
			if within(mine, theirs) || within(theirs, mine) {
				return theirs
			}
		}
	}
	for _, mine := range a.Addresses {
		for _, theirs := range o.Addresses {
			if mine.Addr() == theirs.Addr() {
				return theirs.Addr().String()
			}
		}
	}
	return ""
}

// within: a path is that directory or in it.
func within(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}

// systemDirectories are those without which a host does not boot, or whose content is the host's own.
var systemDirectories = []string{
	"/", "/bin", "/boot", "/dev", "/etc", "/home", "/lib", "/lib64", "/mnt", "/opt", "/proc",
	"/root", "/run", "/sbin", "/srv", "/sys", "/tmp", "/usr", "/var", "/var/lib", "/var/log", "/var/run",
}

// passing are those whose content is the kernel's, or goes with a reboot.
var passing = []string{"/proc", "/sys", "/dev", "/run", "/var/run"}

func (p Part) validate(f *faults, at string) {
	if !partName.MatchString(p.Name) {
		f.add(at+".name", "%q must be 1 to 39 of a-z, 0-9, - and _, beginning with a letter or digit", p.Name)
	}
	if p.Start == "" || p.Stop == "" {
		f.add(at, "needs start and stop")
	}
	if strings.Contains(p.Start+p.Stop, "\x00") {
		f.add(at, "start and stop are text: no command has a byte 0")
	}
	if p.Timeout < 0 {
		f.add(at+".timeout", "must not be negative")
	}
}

// Keeps refuses edits of what is on the disks.
func (a Application) Keeps(next Spec) error {
	n, ok := next.(Application)
	if !ok || !slices.EqualFunc(a.Disks, n.Disks, Volume.Equal) || a.FileSystem != n.FileSystem ||
		!slices.Equal(a.Directories, n.Directories) {
		return errors.New("kind, nodes, volumes, mirror.filesystem and mirror.directories of a module cannot be edited; " +
			"uninstall it and install it anew")
	}
	if !slices.Equal(a.Addresses, n.Addresses) || !slices.Equal(a.Run, n.Run) {
		return errors.New("mirror.addresses and mirror.run of a module cannot be edited; uninstall it and install it anew")
	}
	return nil
}

// applicationDocument is a module of KindMirror in YAML and JSON.
type applicationDocument struct {
	Name   string   `yaml:"name" json:"name"`
	ID     string   `yaml:"id,omitempty" json:"id,omitempty"`
	Kind   Kind     `yaml:"kind" json:"kind"`
	Nodes  []string `yaml:"nodes" json:"nodes"`
	Mirror struct {
		FileSystem  string   `yaml:"filesystem,omitempty" json:"filesystem,omitempty"`
		Directories []string `yaml:"directories,omitempty" json:"directories,omitempty"`
		Addresses   []string `yaml:"addresses,omitempty" json:"addresses,omitempty"`
		Run         []Part   `yaml:"run,omitempty" json:"run,omitempty"`
	} `yaml:"mirror" json:"mirror"`
	Policy  Policy   `yaml:"policy" json:"policy"`
	Volumes []Volume `yaml:"volumes,omitempty" json:"volumes,omitempty"`
}

// Module is what the document says. An address that cannot be read is the zero one, which Validate refuses.
func (d *applicationDocument) Module() Module {
	a := Application{FileSystem: cmp.Or(d.Mirror.FileSystem, FileSystems[0]), Directories: d.Mirror.Directories,
		Run: d.Mirror.Run, Disks: d.Volumes}
	for _, text := range d.Mirror.Addresses {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			p = netip.Prefix{}
		}
		a.Addresses = append(a.Addresses, p)
	}
	return Module{Name: d.Name, ID: d.ID, Kind: d.Kind, Nodes: d.Nodes, Policy: d.Policy, Spec: a}
}

func aboutApplication() About {
	return About{
		Text:  "an application: directories on a volume, addresses and commands, mirrored to the other node",
		Words: Words{Noun: "application", One: "an application", Inside: "application"},
		Document: func(m Module) Document {
			d := &applicationDocument{Name: m.Name, ID: m.ID, Kind: m.Kind, Nodes: m.Nodes, Policy: m.Policy}
			a, ok := m.Spec.(Application)
			if !ok {
				return d
			}
			d.Mirror.FileSystem, d.Mirror.Directories, d.Mirror.Run, d.Volumes = a.FileSystem, a.Directories, a.Run, a.Disks
			for _, p := range a.Addresses {
				d.Mirror.Addresses = append(d.Mirror.Addresses, p.String())
			}
			return d
		},
		Keys: append([]Key{
			{"mirror.filesystem", "file system of the volume: `ext4` or `xfs`; it is made by `duet module install`"},
			{"mirror.directories", "directories that are replicated, by their whole paths, the same on both nodes"},
			{"mirror.addresses", "virtual addresses with their networks, such as 192.168.7.50/24: they are where the " +
				"module runs"},
			{"mirror.run[].name", "name of a pair of commands; those in run are started in order and stopped in reverse"},
			{"mirror.run[].start", "shell command that starts it and returns when that is done"},
			{"mirror.run[].stop", "shell command that stops it"},
			{"mirror.run[].timeout", "what either may take, before it is ended and counts as failed"},
		}, volumeKeys...),
	}
}
