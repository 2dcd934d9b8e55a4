package doctor

import (
	"strings"
	"testing"
	"time"
)

// well is a node at which there is nothing to find fault with.
func well(name, peer string) Facts {
	return Facts{
		Node: name, Version: "1.0", Protocol: 1, Daemon: true, API: "10.0.0.1:7422", Watchdog: "/dev/watchdog",
		Host: Host{Memory: 16 << 30, KVM: true, AppArmor: true, Abstraction: true, Firewall: "nft",
			Watchdogs: []string{"/dev/watchdog"},
			Files:     65536, Locked: true, Spaces: []Space{{Dir: "/var/lib/duet", For: ForMetadata, Free: 10 << 30},
				{Dir: "/srv", For: ForImages, Free: 10 << 30, Grow: 1 << 30}}},
		Hypervisor: Hypervisor{Name: "libvirt", Version: "9.0.0", Emulator: "QEMU 7.2.15",
			User:     "libvirt-qemu:kvm (64055:106)",
			Security: []Security{{Model: "apparmor"}, {Model: "dac", Label: "+64055:+106"}},
			VMs:      []VM{{Name: "web", Running: true, Memory: 4 << 30}, {Name: "mine", Memory: 64 << 30}}},
		Routes: []Route{route1(peer, "hb1", Open), route1(peer, "hb2", Open)},
		Modules: []Module{{Name: "web01", VM: "web", Peer: peer, Arbitration: "safe", Status: "Ready",
			Role: map[string]string{"alpha": "PRIM", "beta": "SECOND"}[name], Why: "it is in step"}},
		Witnesses: []Witness{{Addr: "10.0.0.9:7425", Alive: true}},
	}
}

// route1 is a route whose ports are all in one state.
func route1(to, network, state string) Route {
	return Route{To: to, Network: network, From: "10.0.0.1",
		Addr: map[string]string{"hb1": "10.0.0.2", "hb2": "10.1.0.2"}[network], Probes: []Probe{
			{Proto: TCP, Port: 7420, State: state}, {Proto: TCP, Port: 7421, State: state},
			{Proto: UDP, Port: 7421, State: state}, {Proto: TCP, Port: 7422, API: true, State: state}}}
}

// pair is a look at two nodes that are well.
func pair() (Look, *Facts, *Facts) {
	a, b := well("alpha", "beta"), well("beta", "alpha")
	b.API = "10.0.0.2:7422"
	return Look{Nodes: []Node{{Name: "alpha", Facts: &a}, {Name: "beta", Facts: &b, Within: time.Millisecond}}}, &a, &b
}

func TestWell(t *testing.T) {
	l, _, _ := pair()
	all := Judge(l)
	if bad := Worst(all, Note); len(bad) != 0 {
		t.Errorf("found at nodes that are well: %+v", bad)
	}
	for _, about := range []string{"libvirt", "guests", "apparmor", "memory", "space", "limits", "watchdog", "network",
		"witness", "clock", "version"} {
		if !has(all, Finding{Level: OK, About: about}) {
			t.Errorf("nothing is said about %s", about)
		}
	}
}

// has finds one by its level, its word and parts of its sentences; its node, unless "any".
func has(all []Finding, want Finding) bool {
	for _, f := range all {
		if f.Level == want.Level && f.About == want.About && (want.Node == "" || f.Node == want.Node) &&
			strings.Contains(f.Fact, want.Fact) && strings.Contains(f.Remedy, want.Remedy) {
			return true
		}
	}
	return false
}

// TestJudge spoils one thing at a time. Nothing but what is wanted may be found.
func TestJudge(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(l *Look, a, b *Facts)
		want  []Finding
	}{
		"libvirt away": {func(_ *Look, a, _ *Facts) {
			a.Hypervisor = Hypervisor{Problem: "libvirtd did not answer within 20s"}
		},
			[]Finding{{"alpha", Problem, "libvirt", "no VM can run here: libvirtd did not", "systemctl status libvirtd"}}},
		"no kvm": {func(_ *Look, a, _ *Facts) { a.Host.KVM = false },
			[]Finding{{"alpha", Warning, "kvm", "no /dev/kvm", "modprobe"}}},
		"no rule for AppArmor": {func(_ *Look, _, b *Facts) { b.Host.Abstraction = false },
			[]Finding{{"beta", Problem, "apparmor", "keeps guests from /run/duet/volumes",
				"/etc/apparmor.d/local/abstractions/libvirt-qemu`"}}},
		"AppArmor not for guests": {func(_ *Look, a, _ *Facts) {
			a.Host.Abstraction, a.Hypervisor.Security = false, a.Hypervisor.Security[1:]
		}, []Finding{{"alpha", Note, "apparmor", "does not confine guests", ""}}},
		"AppArmor before the daemon runs": {func(l *Look, a, _ *Facts) {
			a.Host.Abstraction, a.Daemon, a.Hypervisor = false, false, Hypervisor{Name: "libvirt"}
		}, []Finding{{"alpha", Problem, "apparmor", "no rule for duet", ""}}},
		"guests are not confined": {func(_ *Look, a, _ *Facts) {
			a.Host.AppArmor, a.Host.Abstraction, a.Hypervisor.Security[0].Model = false, false, "none"
		}, nil},
		"SELinux": {func(_ *Look, a, _ *Facts) {
			a.Host.SELinux, a.Hypervisor.Security = "enforcing", append(a.Hypervisor.Security, Security{Model: "selinux"})
		}, []Finding{{"alpha", Note, "selinux", "enforcing", "semanage fcontext"}}},
		"memory": {func(_ *Look, a, _ *Facts) { a.Modules = append(a.Modules, Module{Name: "m", VM: "mine", Peer: "beta"}) },
			[]Finding{{"alpha", Warning, "memory",
				"all 2 VMs that may run here did, they would take 68 GiB, and this host has 16 GiB", "setmaxmem"}}},
		"huge pages": {func(_ *Look, a, _ *Facts) { a.Hypervisor.VMs[0].HugePages, a.Host.Huge = true, 1<<30 },
			[]Finding{{"alpha", Warning, "memory", "web want 4 GiB of huge pages, and 1 GiB are set aside", "nr_hugepages"}}},
		"no room for metadata": {func(_ *Look, a, _ *Facts) { a.Host.Spaces[0].Free = 50 << 20 },
			[]Finding{{"alpha", Problem, "space",
				"only 50 MiB free in /var/lib/duet for metadata: below 64 MiB the node refuses", "df -h /var/lib/duet"}}},
		"little room for metadata": {func(_ *Look, a, _ *Facts) { a.Host.Spaces[0].Free = 500 << 20 },
			[]Finding{{"alpha", Warning, "space", "will refuse work", ""}}},
		"images outgrow their disk": {func(_ *Look, _, b *Facts) { b.Host.Spaces[1].Grow = 20 << 30 },
			[]Finding{{"beta", Warning, "space",
				"10 GiB free in /srv for images, and the images there may still grow by 20 GiB", ""}}},
		"limits": {func(_ *Look, a, _ *Facts) { a.Host.Files, a.Host.Locked = 1024, false },
			[]Finding{{"alpha", Warning, "limits", "1024 files only", "LimitNOFILE"},
				{"alpha", Warning, "limits", "not locked", "LimitMEMLOCK"}}},
		"no watchdog": {func(_ *Look, a, _ *Facts) { a.Watchdog, a.Host.Watchdogs = "", nil },
			[]Finding{{"alpha", Note, "watchdog", "no watchdog", ""}}},
		"watchdog not used": {func(_ *Look, a, _ *Facts) { a.Watchdog = "" },
			[]Finding{{"alpha", Note, "watchdog", "is there (watchdog) and not used", "duetd --watchdog /dev/watchdog"}}},
		"watchdog gone": {func(_ *Look, a, _ *Facts) { a.Watchdog = "/dev/watchdog1" },
			[]Finding{{"alpha", Problem, "watchdog", "there is no /dev/watchdog1", "softdog"}}},
		"one port shut": {func(_ *Look, a, _ *Facts) { a.Routes[0].Probes[2].State = Silent },
			[]Finding{{"alpha", Problem, "network", "does not reach UDP 7421 of beta on hb1 (10.0.0.2)",
				"in the firewall of beta: `nft insert rule inet filter input udp dport '{ 7421 }' accept`"}}},
		"the other direction": {func(_ *Look, a, b *Facts) { b.Routes[1].Probes[0].State, a.Host.Firewall = Refused, "ufw" },
			[]Finding{{"beta", Problem, "network", "does not reach TCP 7420 of alpha on hb2 (10.1.0.2)",
				"in the firewall of alpha: `ufw allow 7420/tcp`"}}},
		"API shut": {func(_ *Look, a, b *Facts) { a.Routes[0].Probes[3].State, b.Host.Firewall = Silent, "firewalld" },
			[]Finding{{"alpha", Warning, "network", "does not reach the API of beta on hb1 (10.0.0.2): TCP 7422",
				"firewall-cmd --permanent --add-port=7422/tcp && firewall-cmd --reload"}}},
		"API elsewhere": {func(_ *Look, a, b *Facts) { a.Routes[0].Probes[3].State, b.API = Refused, "127.0.0.1:7422" }, nil},
		"network dead": {func(_ *Look, a, _ *Facts) { a.Routes[1] = route1("beta", "hb2", Silent) },
			[]Finding{{"alpha", Problem, "network", "nothing of beta on hb2 (10.1.0.2) answers",
				"`ping -c 3 -I 10.0.0.1 10.1.0.2`"}}},
		"network refused": {func(_ *Look, a, _ *Facts) { a.Routes[1] = route1("beta", "hb2", Refused) },
			[]Finding{{"alpha", Problem, "network", "beta on hb2 (10.1.0.2) answers and refuses", "systemctl status duetd"}}},
		"one network": {func(_ *Look, a, b *Facts) { a.Routes, b.Routes = a.Routes[:1], b.Routes[:1] },
			[]Finding{{"", Note, "network", "one heartbeat network only, hb1", ""}}},
		"node dead": {func(l *Look, a, _ *Facts) {
			l.Nodes[1] = Node{Name: "beta", Why: "beta does not answer", How: Mute}
			a.Routes = []Route{route1("beta", "hb1", Silent), route1("beta", "hb2", Silent)}
		}, []Finding{{"beta", Problem, "node",
			"beta does not answer; nothing answers at its addresses: it is off, or cut off",
			"`ping -c 3 -I 10.0.0.1 10.0.0.2`"}}},
		"daemon dead": {func(l *Look, a, _ *Facts) {
			l.Nodes[1] = Node{Name: "beta", Why: "beta does not answer"}
			a.Routes = []Route{route1("beta", "hb1", Refused), route1("beta", "hb2", Silent)}
		}, []Finding{{"beta", Problem, "node", "its computer is up, duetd does not run there", "systemctl status duetd"}}},
		"daemon hangs": {func(l *Look, a, _ *Facts) {
			l.Nodes[1] = Node{Name: "beta", Why: "beta does not answer", How: Mute}
			a.Routes[0].Probes[2].State, a.Routes[1].Probes[2].State = Silent, Silent
		}, []Finding{{"beta", Problem, "node", "takes connections and says nothing on them: duetd hangs there",
			"journalctl -u duetd"}}},
		"daemon hangs, and a network is dead": {func(l *Look, a, _ *Facts) {
			l.Nodes[1] = Node{Name: "beta", Why: "beta does not answer", How: Mute}
			a.Routes[0].Probes[2].State, a.Routes[1] = Silent, route1("beta", "hb2", Silent)
		}, []Finding{{"beta", Problem, "node", "duetd hangs there", ""},
			{"alpha", Problem, "network", "nothing of beta on hb2 (10.1.0.2) answers", ""}}},
		"this node was removed": {func(l *Look, a, _ *Facts) {
			l.Nodes[1] = Node{Name: "beta", Why: "no member", How: Refuses}
			a.Routes[0].Probes[2].State, a.Routes[1].Probes[2].State = Silent, Silent
		}, []Finding{{"alpha", Problem, "member", "beta does not take alpha for a member: it was removed from the cluster",
			"on alpha `systemctl stop duetd`, `duet cluster rejoin`, `systemctl start duetd`"}}},
		"this node was removed, and the witness knows": {func(l *Look, a, _ *Facts) {
			l.Nodes[1] = Node{Name: "beta", Why: "no member", How: Refuses}
			a.Routes[0].Probes[2].State, a.Routes[1].Probes[2].State = Silent, Silent
			a.Witnesses[0] = Witness{Addr: "10.0.0.9:7425", Refuses: "the node was removed", Removed: true}
		}, []Finding{{"alpha", Problem, "member", "beta does not take alpha for a member", ""}}},
		"only the witness knows that a node was removed": {func(_ *Look, _, b *Facts) {
			b.Witnesses[0] = Witness{Addr: "10.0.0.9:7425", Refuses: "the node was removed", Removed: true}
		}, []Finding{{"beta", Problem, "member", "the witness 10.0.0.9:7425 does not take beta for a member",
			"duet cluster rejoin"}}},
		"the witness refuses": {func(_ *Look, a, _ *Facts) {
			a.Witnesses[0] = Witness{Addr: "10.0.0.9:7425", Refuses: "certificate is not valid now"}
		}, []Finding{{"alpha", Warning, "witness", "answers and refuses: certificate is not valid now", "timedatectl"}}},
		"a VM does not start": {func(_ *Look, a, b *Facts) {
			a.Modules[0].Role, a.Modules[0].Status, a.Modules[0].Why = "STOP", "NotReady", "there is no network nonet"
			b.Modules[0].Role, b.Modules[0].Status, b.Modules[0].Why = "WAIT", "NotReady", "it waits for alpha"
		}, []Finding{{"", Problem, "modules",
			"web01 does not run: alpha is STOP: there is no network nonet; beta is WAIT: it waits for alpha",
			"`duet status web01`"}}},
		"a VM whose node is cut off": {func(l *Look, a, _ *Facts) {
			l.Nodes[1] = Node{Name: "beta", Why: "beta does not answer", How: Mute}
			a.Routes = []Route{route1("beta", "hb1", Silent), route1("beta", "hb2", Silent)}
			a.Modules[0].Role, a.Modules[0].Status, a.Modules[0].Why = "WAIT", "NotReady", "it waits for beta"
		}, []Finding{{"beta", Problem, "node", "beta does not answer", ""},
			{"", Problem, "modules", "web01 runs on no node that answers: alpha is WAIT: it waits for beta",
				"`duet status web01`"}}},
		"a VM is being started": {func(_ *Look, a, _ *Facts) {
			a.Modules[0].Status, a.Modules[0].Why = "Transient", "it did not start, and is tried again"
		}, []Finding{{"", Warning, "modules", "web01 does not run yet: alpha is PRIM: it did not start, and is tried",
			"duet log"}}},
		"a VM is paused, and more is to be mended": {func(_ *Look, a, b *Facts) {
			a.Modules[0].Condition = "paused"
			a.Modules[0].Notices = []Notice{{Text: "VM web is paused", Remedy: "virsh resume web"}}
			b.Modules = append(b.Modules, Module{Name: "db01", VM: "db", Peer: "alpha"})
			for i := range b.Modules {
				b.Modules[i].Notices = []Notice{{Text: "there is no bridge br0"}}
			}
		}, []Finding{{"alpha", Warning, "modules", "web01: VM web is paused", "virsh resume web"},
			{"beta", Warning, "modules", "db01, web01: there is no bridge br0", "`duet status db01`"}}},
		"a disk is elsewhere": {func(_ *Look, a, _ *Facts) {
			a.Modules[0].Status, a.Modules[0].Condition = "NotReady", "running"
			a.Modules[0].Notices = []Notice{{Alarm: true, Text: "disk vda is not its volume", Remedy: "duet vm return web01"}}
		}, []Finding{{"alpha", Problem, "modules", "web01: disk vda is not its volume", "duet vm return web01"}}},
		"a first copy": {func(_ *Look, _, b *Facts) { b.Modules[0].Status = "Transient" },
			[]Finding{{"", Warning, "copies", "web01 has one copy only, on alpha, until the other one is whole",
				"`duet status web01`"}}},
		"one went on alone": {func(_ *Look, a, _ *Facts) { a.Modules[0].Role = "ALONE" },
			[]Finding{{"", Warning, "copies", "web01 has one copy only, on alpha", "`duet status web01`"}}},
		"a module was stopped": {func(_ *Look, a, b *Facts) {
			a.Modules[0].Role, a.Modules[0].Status, a.Modules[0].Stopped = "STOP", "NotReady", true
			b.Modules[0] = a.Modules[0]
			b.Modules[0].Peer = "alpha"
		}, nil},
		"a release that does not tell how modules stand": {func(_ *Look, a, _ *Facts) {
			a.Modules[0].Role, a.Modules[0].Status, a.Modules[0].Why = "", "", ""
		}, nil},
		"the peer of modules was removed": {func(_ *Look, a, _ *Facts) {
			a.Modules = []Module{{Name: "web01", VM: "web", Peer: "gamma"}, {Name: "db01", VM: "db", Peer: "gamma"}}
		}, []Finding{{"", Warning, "copies",
			"db01, web01 have one copy only: gamma, which had the second one, is no member of the cluster",
			"`duet cluster token` on alpha; then on gamma `systemctl stop duetd`, `duet cluster rejoin`"}}},
		"the other node was replaced": {func(l *Look, a, _ *Facts) {
			l.Nodes[1] = Node{Name: "beta", Why: "no member", How: Replaced}
			a.Routes[0].Probes[2].State, a.Routes[1].Probes[2].State = Silent, Silent
		}, []Finding{{"beta", Problem, "member", "what answers at its addresses is not the computer that is a member as beta",
			"duet cluster rejoin"}}},
		"a node that refuses a port and says why": {func(l *Look, a, _ *Facts) {
			l.Nodes[1] = Node{Name: "beta", Why: "beta runs an older release"}
			a.Routes[0].Probes[1].State = Silent
		}, []Finding{{"beta", Problem, "node", "beta runs an older release", ""},
			{"alpha", Problem, "network", "does not reach TCP 7421 of beta", "in the firewall of beta"}}},
		"joined, before its daemon runs": {func(l *Look, a, _ *Facts) {
			l.Nodes, a.Daemon, a.Ports = l.Nodes[:1], false, []Port{{Proto: TCP, Addr: "10.0.0.1:7420"},
				{Proto: UDP, Addr: "10.0.0.1:7421"}}
			a.Routes[0].Probes[1].State = Silent
		}, []Finding{{"alpha", Problem, "network", "TCP 7421",
			"`ufw allow 7421/tcp` or `firewall-cmd --permanent --add-port=7421/tcp && firewall-cmd --reload` or `nft"}}},
		"ports taken": {func(l *Look, a, _ *Facts) {
			a.Ports = []Port{{Proto: TCP, Addr: "10.0.0.1:7420", Problem: Busy},
				{Proto: UDP, Addr: "[fd00::1]:7421", Problem: NoAddr},
				{Proto: TCP, Addr: "10.0.0.1:7422", Problem: "permission denied"}}
		}, []Finding{{"alpha", Problem, "ports", "another program has TCP 10.0.0.1:7420", "sport = :7420"},
			{"alpha", Problem, "ports", "does not have the address of UDP [fd00::1]:7421", "ip -br addr"},
			{"alpha", Problem, "ports", "cannot be had: permission denied", ""}}},
		"clock": {func(l *Look, _, _ *Facts) { l.Nodes[1].Ahead = -5300 * time.Millisecond },
			[]Finding{{"beta", Warning, "clock", "5.3s behind alpha's", "timedatectl"}}},
		"clock, badly measured": {func(l *Look, _, _ *Facts) {
			l.Nodes[1].Ahead, l.Nodes[1].Within = 3*time.Second,
				2*time.Second
		}, nil},
		"two builds": {func(_ *Look, a, _ *Facts) { a.Version = "0.9" },
			[]Finding{{"", Note, "version", "duetd 0.9 on alpha, 1.0 on beta: they work together", "upgrade"}}},
		"two protocols": {func(_ *Look, a, _ *Facts) { a.Version, a.Protocol = "0.9", 2 },
			[]Finding{{"", Problem, "version", "cannot replicate", "upgrade"}}},
		"witness silent": {func(_ *Look, _, b *Facts) { b.Witnesses[0].Alive = false },
			[]Finding{{"beta", Warning, "witness", "10.0.0.9:7425 does not answer", "duetd-witness"}}},
		"spare silent": {func(_ *Look, a, _ *Facts) {
			a.Witnesses = append(a.Witnesses, Witness{Addr: "10.0.0.8:7425", Spare: true})
		},
			[]Finding{{"alpha", Warning, "witness", "could not take the voter's place", ""}}},
		"nobody decides": {func(_ *Look, a, b *Facts) { a.Witnesses, b.Witnesses = nil, nil },
			[]Finding{{"", Warning, "arbitration", "web01 waits on the other one", "duetd witness"}}},
		"the gateway decides": {func(_ *Look, a, b *Facts) {
			a.Witnesses, b.Witnesses = nil, nil
			a.Modules[0].Arbitration, b.Modules[0].Arbitration = "available", "available"
		}, []Finding{{"", Note, "arbitration", "two writers of web01", ""}}},
		"a fence device fails": {func(_ *Look, a, _ *Facts) {
			a.Fenced, a.Devices = []string{"beta"}, []Device{{"beta", "psu1", ""}, {"beta", "bmc", "status: unknown password"}}
		}, []Finding{{"alpha", Warning, "fence", "fence device bmc could not switch beta off: status: unknown password",
			"duet cluster fence test beta"}}},
		"no ping target answers": {func(_ *Look, a, b *Facts) {
			a.Witnesses, b.Witnesses = nil, nil
			a.Modules[0].Arbitration, b.Modules[0].Arbitration = "available", "available"
			a.Targets, b.Targets = []Target{{"10.0.0.254", false}}, []Target{{"10.0.0.254", true}}
		}, []Finding{{"", Note, "arbitration", "two writers of web01", ""},
			{"alpha", Warning, "ping", "no ping target answers (10.0.0.254): web01 would wait if beta were lost",
				"`ping -c 3 10.0.0.254`"}}},
		"one of two ping targets answers": {func(_ *Look, a, _ *Facts) {
			a.Targets = []Target{{"10.0.0.254", true}, {"10.0.0.253", false}}
		}, []Finding{{"alpha", Warning, "ping", "ping target 10.0.0.253 does not answer, others do",
			"ping -c 3 10.0.0.253"}}},
		"there is no ping target": {func(_ *Look, _, b *Facts) {
			b.Targets, b.Modules[0].Arbitration = []Target{}, "available"
		}, []Finding{{"beta", Warning, "ping",
			"there is no ping target, and no default gateway: web01 would wait if alpha were",
			"duet cluster ping set"}}},
		"fence devices decide": {func(_ *Look, a, b *Facts) {
			a.Witnesses, b.Witnesses = nil, nil
			a.Fenced, b.Fenced = []string{"alpha", "beta"}, []string{"alpha", "beta"}
		}, nil},
		"nothing to decide yet": {func(_ *Look, a, b *Facts) {
			*a, *b = well("alpha", "beta"), well("beta", "alpha")
			b.API = "10.0.0.2:7422"
			a.Witnesses, b.Witnesses, a.Modules, b.Modules = nil, nil, nil, nil
		},
			[]Finding{{"", Note, "arbitration", "no witness yet", "duetd witness"}}},
		"not looked at": {func(_ *Look, a, _ *Facts) { a.Unlooked = []string{"the moon"} },
			[]Finding{{"alpha", Note, "unlooked", "not looked at: the moon", ""}}},
	} {
		t.Run(name, func(t *testing.T) {
			l, a, b := pair()
			c.spoil(&l, a, b)
			found := Worst(Judge(l), Note)
			for _, want := range c.want {
				if !has(found, want) {
					t.Errorf("not found: %+v", want)
				}
			}
			if len(found) != len(c.want) {
				t.Errorf("found %d, want %d: %+v", len(found), len(c.want), found)
			}
			for _, f := range found {
				if (f.Level == Problem || f.Level == Warning) && f.Remedy == "" && !strings.Contains(f.Fact, "permission denied") {
					t.Errorf("no remedy: %+v", f)
				}
			}
		})
	}
}

// TestReachesIsHeard: that the kernel of a node takes connections is no sign of its daemon.
func TestReachesIsHeard(t *testing.T) {
	reaches := Finding{Node: "alpha", Level: OK, About: "network", Fact: "reaches beta"}
	for heartbeats, want := range map[string]bool{Open: true, Silent: false} {
		l, a, _ := pair()
		l.Nodes[1] = Node{Name: "beta", Why: "beta does not answer", How: Mute}
		for i := range a.Routes {
			a.Routes[i].Probes[2].State = heartbeats
		}
		if got := has(Judge(l), reaches); got != want {
			t.Errorf("heartbeats %s: reaches beta: %v", heartbeats, got)
		}
	}
}

// TestAhead: an answer that took a second to make is no second of difference.
func TestAhead(t *testing.T) {
	t0 := time.Unix(1000, 0)
	at := func(ms int) time.Time { return t0.Add(time.Duration(ms) * time.Millisecond) }
	for _, c := range []struct {
		sent, began, ended, received int
		ahead, within                time.Duration
	}{
		{0, 10, 1010, 1020, 0, 10 * time.Millisecond},
		{0, 5010, 6010, 1020, 5 * time.Second, 10 * time.Millisecond},
		{0, -4990, -3990, 1020, -5 * time.Second, 10 * time.Millisecond},
		{0, 30, 30, 40, 10 * time.Millisecond, 20 * time.Millisecond}, // all of the way was there
	} {
		ahead, within := Ahead(at(c.sent), at(c.began), at(c.ended), at(c.received))
		if ahead != c.ahead || within != c.within {
			t.Errorf("%+v: %v within %v", c, ahead, within)
		}
	}
}

func TestSize(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1024: "1 KiB", 1536: "1.5 KiB", 200 << 20: "200 MiB",
		64 << 30: "64 GiB"} {
		if got := size(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}
