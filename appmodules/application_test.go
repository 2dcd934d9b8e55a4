package appmodules

import (
	"encoding/json"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// files is an application with every part.
func files() Module {
	m := whole()
	m.Name, m.Kind = "files01", KindMirror
	m.Spec = Application{FileSystem: "xfs", Directories: []string{"/srv/files", "/var/lib/my app"},
		Addresses: []netip.Prefix{netip.MustParsePrefix("192.168.7.50/24"), netip.MustParsePrefix("2001:db8::50/64")},
		Run: []Part{{Name: "db", Start: "start-db", Stop: "stop-db", Timeout: Duration(time.Minute)},
			{Name: "web", Start: "start-web", Stop: "stop-web"}},
		Disks: []Volume{{Target: "files", ID: "5f0c", Size: 1 << 30,
			Paths: map[string]string{"alpha": "/a", "beta": "/b"}}}}
	return m
}

// application is files with a change.
func application(change func(*Application)) Module {
	m := files()
	a := m.Spec.(Application)
	a.Directories, a.Addresses = slices.Clone(a.Directories), slices.Clone(a.Addresses)
	a.Run, a.Disks = slices.Clone(a.Run), slices.Clone(a.Disks)
	change(&a)
	m.Spec = a
	return m
}

// TestEveryFaultOfAnApplicationIsTold: each with its key, and what is right at the edge is taken.
func TestEveryFaultOfAnApplicationIsTold(t *testing.T) {
	address := func(text string) func(*Application) {
		return func(a *Application) { a.Addresses[0] = netip.MustParsePrefix(text) }
	}
	directory := func(text string) func(*Application) { return func(a *Application) { a.Directories[0] = text } }
	const first = "mirror.addresses[0]"
	for what, c := range map[string]struct {
		spoil func(*Application)
		want  string // paths
	}{
		"nothing": {func(*Application) {}, ""},
		"an application of nothing": {func(a *Application) { *a = Application{FileSystem: "ext4"} },
			"mirror"},
		"no file system yet known":    {func(a *Application) { a.FileSystem = "btrfs" }, "mirror.filesystem"},
		"an address that is no text":  {func(a *Application) { a.Addresses[1] = netip.Prefix{} }, "mirror.addresses[1]"},
		"an address twice":            {func(a *Application) { a.Addresses[1] = a.Addresses[0] }, "mirror.addresses[1]"},
		"this host":                   {address("127.0.0.1/8"), first},
		"a group":                     {address("224.0.0.5/24"), first},
		"no address":                  {address("0.0.0.0/24"), first},
		"an address of a link":        {address("fe80::1/64"), first},
		"the network itself":          {address("192.168.7.0/24"), first},
		"two hosts":                   {address("192.168.7.0/31"), ""},
		"an address without network":  {address("192.168.7.50/32"), first},
		"the whole internet":          {address("192.168.7.50/0"), first},
		"an IPv4 address in IPv6":     {address("::ffff:192.168.7.50/120"), first},
		"a directory from nowhere":    {directory("srv/files"), "mirror.directories[0]"},
		"a directory with a way back": {directory("/srv/../etc"), "mirror.directories[0]"},
		"a slash at the end":          {directory("/srv/files/"), "mirror.directories[0]"},
		"a newline in a path":         {directory("/srv/fi\nles"), "mirror.directories[0]"},
		"a path that is no text":      {directory("/srv/\xff\ufffd"), "mirror.directories[0]"},
		"the root":                    {directory("/"), "mirror.directories[0] mirror.directories[1]"},
		"the system's":                {directory("/etc"), "mirror.directories[0]"},
		"a directory of the system's": {directory("/etc/samba"), ""},
		"a directory twice":           {directory("/var/lib/my app"), "mirror.directories[1]"},
		"a directory in the other":    {directory("/var/lib/my app/x"), "mirror.directories[1]"},
		"a directory around it": {func(a *Application) { a.Directories[1] = "/srv/files/x/y" },
			"mirror.directories[1]"},
		"a neighbour of like name": {directory("/var/lib/my app2"), ""},
		"a part without a name":    {func(a *Application) { a.Run[0].Name = "" }, "mirror.run[0].name"},
		"a part that is a path":    {func(a *Application) { a.Run[0].Name = "../db" }, "mirror.run[0].name"},
		"the longest name":         {func(a *Application) { a.Run[0].Name = strings.Repeat("a", 39) }, ""},
		"a longer name": {func(a *Application) { a.Run[0].Name = strings.Repeat("a", 40) },
			"mirror.run[0].name"},
		"a name twice":          {func(a *Application) { a.Run[1].Name = "db" }, "mirror.run[1].name"},
		"no start":              {func(a *Application) { a.Run[0].Start = "" }, "mirror.run[0]"},
		"no stop":               {func(a *Application) { a.Run[1].Stop = "" }, "mirror.run[1]"},
		"a byte 0 in a command": {func(a *Application) { a.Run[1].Stop = "kill\x00" }, "mirror.run[1]"},
		"a time before now":     {func(a *Application) { a.Run[0].Timeout = -1 }, "mirror.run[0].timeout"},
		"no volume yet":         {func(a *Application) { a.Disks = nil }, ""},
		"a volume for nothing":  {func(a *Application) { a.Directories = nil }, "volumes"},
		"two volumes": {func(a *Application) {
			v := a.Disks[0]
			v.Target = "more"
			a.Disks = append(a.Disks, v)
		}, "volumes"},
		"half a sector": {func(a *Application) { a.Disks[0].Size++ }, "volumes[0].size"},
	} {
		var have []string
		for _, f := range application(c.spoil).Validate() {
			have = append(have, f.Path)
			if f.Text == "" {
				t.Errorf("%s: %s is said without a word", what, f.Path)
			}
		}
		if got := strings.Join(have, " "); got != c.want {
			t.Errorf("%s: faults at %q, want %q", what, got, c.want)
		}
	}
	m := files()
	m.Nodes = []string{"alpha", "alpha"}
	if f := m.Validate(); len(f) == 0 || f[0].Path != "nodes" {
		t.Errorf("one node twice: %v", f)
	}
}

// TestEditsOfAnApplication: what is on the disks stays, what is the same is no edit however it is written.
func TestEditsOfAnApplication(t *testing.T) {
	for what, c := range map[string]struct {
		edit func(*Application)
		want string // in the refusal; empty: none
	}{
		"nothing":            {func(*Application) {}, ""},
		"another system":     {func(a *Application) { a.FileSystem = "ext4" }, "mirror.filesystem"},
		"a directory more":   {func(a *Application) { a.Directories = append(a.Directories, "/x") }, "mirror.directories"},
		"another order":      {func(a *Application) { slices.Reverse(a.Directories) }, "mirror.directories"},
		"a larger volume":    {func(a *Application) { a.Disks[0].Size *= 2 }, "volumes"},
		"an address less":    {func(a *Application) { a.Addresses = nil }, "mirror.addresses"},
		"another command":    {func(a *Application) { a.Run[0].Stop = "true" }, "mirror.run"},
		"another time limit": {func(a *Application) { a.Run[1].Timeout = 1 }, "mirror.run"},
	} {
		err := files().Spec.Keeps(application(c.edit).Spec)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", what, err, c.want)
		}
	}
	none := func(a *Application) { a.Run, a.Addresses = nil, nil }
	empty := func(a *Application) { a.Run, a.Addresses = []Part{}, []netip.Prefix{} }
	if err := application(none).Spec.Keeps(application(empty).Spec); err != nil {
		t.Errorf("an empty list for none: %v", err)
	}
	if files().Spec.Keeps(VM{}) == nil {
		t.Error("an application became a VM")
	}
}

// TestSharedBetweenApplications: two modules must not have one directory or address, however they write it.
func TestSharedBetweenApplications(t *testing.T) {
	other := Application{Directories: []string{"/srv/other"},
		Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.0.1/8")}}
	for what, c := range map[string]struct {
		change func(*Application)
		want   string
	}{
		"nothing":               {func(*Application) {}, ""},
		"a directory":           {func(a *Application) { a.Directories[1] = "/srv/other" }, "/srv/other"},
		"one in theirs":         {func(a *Application) { a.Directories[1] = "/srv/other/x" }, "/srv/other"},
		"one around theirs":     {func(a *Application) { a.Directories[0] = "/srv" }, "/srv/other"},
		"a neighbour":           {func(a *Application) { a.Directories[0] = "/srv/other2" }, ""},
		"an address":            {func(a *Application) { a.Addresses[0] = netip.MustParsePrefix("10.0.0.1/24") }, "10.0.0.1"},
		"another of the subnet": {func(a *Application) { a.Addresses[0] = netip.MustParsePrefix("10.0.0.2/8") }, ""},
	} {
		a := application(c.change).Spec.(Application)
		if got := a.Shares(other); got != c.want {
			t.Errorf("%s: %q, want %q", what, got, c.want)
		}
		if got := other.Shares(a); (got == "") != (c.want == "") {
			t.Errorf("%s, asked the other way round: %q", what, got)
		}
	}
}

// TestStoredApplication: an application is read back from the store as it was.
func TestStoredApplication(t *testing.T) {
	b, err := json.Marshal(files())
	if err != nil {
		t.Fatal(err)
	}
	var back Module
	if err := json.Unmarshal(b, &back); err != nil || !reflect.DeepEqual(back.Spec, files().Spec) {
		t.Errorf("%v\n%s\n%+v", err, b, back)
	}
	if (Part{}).Limit() != PartTime || (Part{Timeout: Duration(time.Second)}).Limit() != time.Second {
		t.Error("a part has another limit")
	}
}
