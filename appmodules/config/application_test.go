package config

import (
	"reflect"
	"strings"
	"testing"

	"duet/appmodules"
)

// every is an application with every key of its kind.
const every = `name: files01
id: abcdefghijklmnopqrst
kind: mirror
nodes: [alpha, beta]
mirror:
  filesystem: xfs
  directories: [/srv/files, "/srv/my files"]
  addresses: [192.168.7.50/24, "2001:db8::50/64"]
  run:
  - name: db
    start: |
      systemctl start db
      echo "it is: up"
    stop: systemctl stop db
    timeout: 90s
  - {name: web, start: start-web, stop: stop-web}
volumes:
- target: files
  id: 5f0c
  size: 1073741824
  paths: {alpha: /a, beta: /b}
`

// TestApplicationRoundTrip: what `duet config show` writes of an application is read back as it was, with every key.
func TestApplicationRoundTrip(t *testing.T) {
	m, err := Parse("files01", []byte(every))
	if err != nil {
		t.Fatal(err)
	}
	text, err := Format(m)
	if err != nil {
		t.Fatal(err)
	}
	if back, err := Parse("again", text); err != nil || !reflect.DeepEqual(back, m) {
		t.Errorf("%v\n%+v\n%+v\n%s", err, back, m, text)
	}
	about, err := m.Kind.About()
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range about.Keys {
		for part := range strings.SplitSeq(strings.ReplaceAll(k.Path, "[]", ""), ".") {
			if !strings.Contains(string(text), part+":") {
				t.Errorf("%s is not in\n%s", k.Path, text)
			}
		}
	}
	if a := m.Spec.(appmodules.Application); len(a.Run) != 2 || !strings.HasSuffix(a.Run[0].Start, "up\"\n") ||
		len(a.Addresses) != 2 || a.FileSystem != "xfs" {
		t.Errorf("it was read as %+v", a)
	}
	empty := strings.Replace(every, "  - {name: web", "  # {name: web", 1)
	if err := m.Spec.Keeps(must(t, empty).Spec); err == nil {
		t.Error("a part less is no edit")
	}
}

func must(t *testing.T, text string) appmodules.Module {
	t.Helper()
	m, err := Parse("files01", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// TestMistakesOfApplications: each is told with its line and its key.
func TestMistakesOfApplications(t *testing.T) {
	for what, c := range map[string]struct{ from, to, want string }{
		"a key that is none":      {"  filesystem:", "  encrypt: yes\n  filesystem:", `x:6: unknown field "encrypt"`},
		"a key of a part":         {"    timeout: 90s", "    user: db", `x:15: unknown field "user"`},
		"a key of a VM":           {"mirror:", "vm:\n  domain: a\nmirror:", `x:5: unknown field "vm"`},
		"an address without net":  {"192.168.7.50/24", "192.168.7.50", "x:8: mirror.addresses[0]: is no address with its"},
		"a file system of others": {"xfs", "zfs", `x:6: mirror.filesystem: "zfs" is not one of ext4, xfs`},
		"a directory of the system": {"/srv/files", "/etc",
			"x:7: mirror.directories[0]: /etc belongs to the system"},
		"a name of a part": {"name: db", "name: DB", `x:10: mirror.run[0].name: "DB" must be`},
		"a part of nothing": {", stop: stop-web}", "}",
			"x:16: mirror.run[1]: needs start and stop"},
		"a time in words": {"90s", "long", "x:15: mirror.run[0].timeout: "},
	} {
		text := strings.Replace(every, c.from, c.to, 1)
		if _, err := Parse("x", []byte(text)); text == every || err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", what, err, c.want)
		}
	}
}
