package appmodules

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

// pg is an application without a fault.
func pg() Application {
	return Application{FileSystem: "ext4", Directories: []string{"/var/lib/pg", "/srv/pg"},
		Addresses: []netip.Prefix{netip.MustParsePrefix("192.168.7.50/24"), netip.MustParsePrefix("fd00::50/64")},
		Run:       []Part{{Name: "pg", Start: "pg start", Stop: "pg stop", Timeout: Duration(time.Minute)}},
		Disks: []Volume{{Target: "files", ID: "x", Size: 1 << 30,
			Paths: map[string]string{"alpha": "/a", "beta": "/b"}}}}
}

// TestFaultsOfApplications: each fault is told with its place.
func TestFaultsOfApplications(t *testing.T) {
	nodes := []string{"alpha", "beta"}
	if f := pg().Validate(nodes); len(f) > 0 {
		t.Fatal(f)
	}
	prefix := netip.MustParsePrefix
	for want, change := range map[string]func(*Application){
		"mirror.filesystem: ":                       func(a *Application) { a.FileSystem = "btrfs" },
		`mirror.directories[0]: "pg" is no whole`:   func(a *Application) { a.Directories[0] = "pg" },
		`mirror.directories[1]: "/srv/../etc" is`:   func(a *Application) { a.Directories[1] = "/srv/../etc" },
		`mirror.directories[0]: "/a\n" has bytes`:   func(a *Application) { a.Directories[0] = "/a\n" },
		"mirror.directories[0]: /var belongs":       func(a *Application) { a.Directories[0] = "/var" },
		"mirror.directories[1]: /var/lib/pg/x and ": func(a *Application) { a.Directories[1] = "/var/lib/pg/x" },
		"mirror.addresses[0]: is no address":        func(a *Application) { a.Addresses[0] = netip.Prefix{} },
		"mirror.addresses[1]: 192.168.7.50 is there": func(a *Application) {
			a.Addresses[1] = prefix("192.168.7.50/16")
		},
		"mirror.addresses[0]: 127.0.0.1 is no":       func(a *Application) { a.Addresses[0] = prefix("127.0.0.1/8") },
		"mirror.addresses[0]: 192.168.7.0/24 is the": func(a *Application) { a.Addresses[0] = prefix("192.168.7.0/24") },
		"mirror.addresses[1]: fe80::1 is no":         func(a *Application) { a.Addresses[1] = prefix("fe80::1/64") },
		`mirror.run[0].name: "" must be`:             func(a *Application) { a.Run[0].Name = "" },
		"mirror.run[0]: needs start and stop":        func(a *Application) { a.Run[0].Stop = "" },
		"mirror.run[0].timeout: must not":            func(a *Application) { a.Run[0].Timeout = -1 },
		"mirror.run[1].name: pg is there twice":      func(a *Application) { a.Run = append(a.Run, a.Run[0]) },
		"volumes[0].paths: node \"beta\" has no image": func(a *Application) {
			a.Disks[0].Paths = map[string]string{"alpha": "/a"}
		},
		"volumes: an application has one volume": func(a *Application) {
			a.Disks = append(a.Disks, Volume{Target: "b", Size: 512})
		},
	} {
		a := pg()
		change(&a)
		f := a.Validate(nodes)
		if !slices.ContainsFunc(f, func(x Fault) bool { return strings.HasPrefix(x.Error(), want) }) {
			t.Errorf("want %q, got %v", want, f)
		}
	}
	if f := pg().Validate([]string{"alpha"}); len(f) == 0 || f[0].Path != "nodes" {
		t.Errorf("one node: %v", f)
	}
}

// TestApplicationsApart: two modules do not have one directory, or one inside the other, or one address.
func TestApplicationsApart(t *testing.T) {
	other := func(dir, addr string) Application {
		return Application{Directories: []string{dir}, Addresses: []netip.Prefix{netip.MustParsePrefix(addr)}}
	}
	for _, c := range []struct {
		o    Application
		want string
	}{
		{other("/srv/other", "10.0.0.1/8"), ""},
		{other("/srv/pg", "10.0.0.1/8"), "/srv/pg"},
		{other("/srv/pg/data", "10.0.0.1/8"), "/srv/pg/data"},
		{other("/srv", "10.0.0.1/8"), "/srv"},
		{other("/srv/pgx", "192.168.7.50/16"), "192.168.7.50"},
	} {
		if got := pg().Shares(c.o); got != c.want {
			t.Errorf("%v: %q, want %q", c.o, got, c.want)
		}
	}
}

// TestApplicationKeeps: what lies on the volume is not edited, and neither yet what runs.
func TestApplicationKeeps(t *testing.T) {
	if err := pg().Keeps(pg()); err != nil {
		t.Error(err)
	}
	for what, change := range map[string]func(*Application){
		"a file system": func(a *Application) { a.FileSystem = "xfs" },
		"a directory":   func(a *Application) { a.Directories = a.Directories[:1] },
		"an address":    func(a *Application) { a.Addresses = a.Addresses[:1] },
		"a command":     func(a *Application) { a.Run = nil },
		"a volume":      func(a *Application) { a.Disks = nil },
	} {
		next := pg()
		change(&next)
		if pg().Keeps(next) == nil {
			t.Errorf("another %s is taken", what)
		}
	}
	if pg().Keeps(VM{}) == nil {
		t.Error("a VM in its place is taken")
	}
}
