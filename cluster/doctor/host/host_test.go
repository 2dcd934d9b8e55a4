package host

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"testing"
	"time"

	"duet/cluster"
	"duet/cluster/doctor"
)

// root makes a directory that stands for a whole computer.
func root(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestLook(t *testing.T) {
	got := Look(Config{Root: root(t, map[string]string{
		"/proc/meminfo": "MemTotal:       16384 kB\nHugePages_Total:       3\n" +
			"Hugepagesize:       2048 kB\n",
		"/proc/self/status":                         "Name:\tduetd\nVmLck:\t    4096 kB\n",
		"/sys/module/apparmor/parameters/enabled":   "Y\n",
		"/sys/fs/selinux/enforce":                   "1",
		"/etc/ufw/ufw.conf":                         "# ENABLED=no\nENABLED=yes\n",
		"/dev/kvm":                                  "",
		"/dev/watchdog":                             "",
		"/dev/watchdog0":                            "",
		"/etc/apparmor.d/abstractions/libvirt-qemu": "  /x rw,\n  #include <local/abstractions/libvirt-qemu>\n",
	})})
	if got.Memory != 16<<20 || got.Huge != 6<<20 || !got.Locked || !got.AppArmor || got.Abstraction ||
		got.SELinux != "enforcing" || got.Firewall != "ufw" || !got.KVM {
		t.Errorf("%+v", got)
	}
	if !slices.Equal(got.Watchdogs, []string{"/dev/watchdog", "/dev/watchdog0"}) {
		t.Errorf("watchdogs %v", got.Watchdogs)
	}
	bare := Look(Config{Root: t.TempDir()})
	if bare.Memory != 0 || bare.Locked || bare.AppArmor || bare.SELinux != "" || bare.Firewall != "" || bare.KVM ||
		bare.Watchdogs != nil {
		t.Errorf("of nothing: %+v", bare)
	}
}

func TestFirewall(t *testing.T) {
	for want, files := range map[string]map[string]string{
		"ufw":       {"/etc/ufw/ufw.conf": "ENABLED=yes", "/usr/sbin/nft": ""},
		"firewalld": {"/etc/ufw/ufw.conf": "ENABLED=no", "/run/firewalld.pid": "1", "/usr/sbin/nft": ""},
		"nft":       {"/usr/sbin/nft": ""},
		"":          {},
	} {
		if got := (Config{Root: root(t, files)}).firewall(); got != want {
			t.Errorf("%v: %q, want %q", files, got, want)
		}
	}
}

// TestAbstraction: each way in which an admin, or a package, can add the rule.
func TestAbstraction(t *testing.T) {
	const main, local = "/etc/apparmor.d/abstractions/libvirt-qemu", "/etc/apparmor.d/local/abstractions/libvirt-qemu"
	const includes = "  include if exists <local/abstractions/libvirt-qemu>\n"
	for name, c := range map[string]struct {
		files map[string]string
		want  bool
	}{
		"rule": {map[string]string{main: includes, local: "/run/duet/volumes/** rw, # duet\n"}, true},
		"old include": {map[string]string{main: "#include <local/abstractions/libvirt-qemu>",
			local: "  /run/duet/volumes/** rw,"}, true},
		"file of its own": {map[string]string{main: includes, local: "include if exists <abstractions/duet>\n",
			"/etc/apparmor.d/abstractions/duet": "/run/duet/volumes/** rw,\n"}, true},
		"its file is missing": {map[string]string{main: includes, local: "include if exists <abstractions/duet>\n"}, false},
		"only a comment":      {map[string]string{main: includes, local: "# /run/duet/volumes/** rw,\n"}, false},
		"not included":        {map[string]string{main: "# nothing\n", local: "/run/duet/volumes/** rw,\n"}, false},
		"in the main file":    {map[string]string{main: "/run/duet/volumes/** rw,\n"}, true},
		"nothing":             {map[string]string{}, false},
	} {
		if got := (Config{Root: root(t, c.files)}).abstraction(); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestSpaces(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("free space is looked at on Linux only")
	}
	dir := t.TempDir()
	sparse := filepath.Join(dir, "sparse.raw")
	if err := os.WriteFile(sparse, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(sparse, 1<<30); err != nil {
		t.Fatal(err)
	}
	got := Spaces(filepath.Join(dir, "not", "made", "yet"), []string{sparse, "/dev/null", filepath.Join(dir, "gone")})
	if len(got) != 2 || got[0].For != doctor.ForMetadata || got[0].Free <= 0 || got[1].For != doctor.ForImages ||
		got[1].Grow != 1<<30 || got[1].Free <= 0 {
		t.Errorf("%+v", got)
	}
}

// two is a cluster of two nodes on loopback, with the port that is free there.
func two(t *testing.T) (cluster.Config, []net.Listener) {
	t.Helper()
	for range 50 {
		first, err := net.Listen("tcp", "127.0.61.2:0")
		if err != nil {
			t.Fatal(err)
		}
		port := first.Addr().(*net.TCPAddr).Port
		second, err := net.Listen("tcp", net.JoinHostPort("127.0.61.2", strconv.Itoa(port+1)))
		if err != nil {
			first.Close()
			continue
		}
		t.Cleanup(func() { first.Close(); second.Close() })
		return cluster.Config{Self: "alpha", Port: port, Networks: []cluster.Network{{Name: "hb1"}, {Name: "hb2"}},
			Members: []cluster.Member{
				{Node: "alpha", Addrs: map[string]string{"hb1": "127.0.61.1", "hb2": "127.0.62.1"}},
				{Node: "beta", Addrs: map[string]string{"hb1": "127.0.61.2"}}}}, []net.Listener{first, second}
	}
	t.Fatal("no free ports")
	return cluster.Config{}, nil
}

func TestReach(t *testing.T) {
	c, lns := two(t)
	lns[1].Close()
	routes := Routes(c)
	if len(routes) != 1 || routes[0].To != "beta" || routes[0].From != "127.0.61.1" || routes[0].Addr != "127.0.61.2" {
		t.Fatalf("%+v", routes)
	}
	Reach(t.Context(), routes)
	want := []doctor.Probe{{Proto: doctor.TCP, Port: c.Port, State: doctor.Open},
		{Proto: doctor.TCP, Port: c.Port + 1, State: doctor.Refused},
		{Proto: doctor.UDP, Port: c.Port + 1}, {Proto: doctor.TCP, Port: c.Port + 2, API: true, State: doctor.Refused}}
	if !slices.Equal(routes[0].Probes, want) {
		t.Errorf("%+v", routes[0].Probes)
	}
	conn, err := lns[0].Accept()
	if err != nil || conn.RemoteAddr().(*net.TCPAddr).IP.String() != "127.0.61.1" {
		t.Errorf("it came from %v, %v", conn.RemoteAddr(), err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	routes = []doctor.Route{{From: "127.0.0.1", Addr: "192.0.2.1", Probes: []doctor.Probe{{Proto: doctor.TCP, Port: 9}}}}
	if Reach(ctx, routes); routes[0].Probes[0].State != doctor.Silent { // from there it gets nowhere
		t.Errorf("%+v", routes[0])
	}
}

func TestPorts(t *testing.T) {
	c, _ := two(t)
	c.Self = "beta"
	got := Ports(c)
	problems := map[string]string{}
	for _, p := range got {
		problems[p.Proto+p.Addr] = p.Problem
	}
	at := func(proto string, offset int) string {
		return problems[proto+net.JoinHostPort("127.0.61.2", strconv.Itoa(c.Port+offset))]
	}
	if len(got) != 4 || at(doctor.TCP, 0) != doctor.Busy || at(doctor.TCP, 1) != doctor.Busy || at(doctor.UDP, 1) != "" {
		t.Errorf("%+v", got)
	}
	c.Members[1].Addrs["hb1"] = "192.0.2.1"
	for _, p := range Ports(c) {
		if p.Problem != doctor.NoAddr {
			t.Errorf("%+v", p)
		}
	}
}

func TestWho(t *testing.T) {
	for label, want := range map[string]string{"+0:+0": "root:root (0:0)", "+64999:+64999": "64999:64999", "": "",
		"svirt_t": "svirt_t"} {
		if got := Who(label); got != want {
			t.Errorf("%q: %q, want %q", label, got, want)
		}
	}
}
