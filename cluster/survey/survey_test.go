package survey

import (
	"archive/zip"
	"bytes"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"duet/appmodules"
	"duet/cluster"
	"duet/cluster/doctor"
	"duet/cluster/fencing"
	"duet/cluster/ping"
	"duet/cluster/support"
	"duet/console/api"
	"duet/vmmanager"
	"duet/vmmanager/fake"
)

// looked is a hypervisor that counts how often it is looked at.
type looked struct {
	*fake.Hypervisor
	looks atomic.Int32
	err   error
}

func (h *looked) Inspect(ctx context.Context) (vmmanager.HostReport, error) {
	h.looks.Add(1)
	if h.err != nil {
		return vmmanager.HostReport{}, h.err
	}
	return h.Hypervisor.Inspect(ctx)
}

// mute is a hypervisor that cannot be asked.
type mute struct{ vmmanager.Hypervisor }

// pair is alpha, which asks beta.
type pair struct {
	alpha, beta *Lookout
	hv          *looked // beta's
	alive       bool    // beta's heartbeats are heard
	found       []fencing.Found
	away        error                            // why beta does not answer
	stands      map[cluster.NodeID]api.NodeState // how web01 stands on each
}

func newPair(t *testing.T) *pair {
	t.Helper()
	p := &pair{hv: &looked{Hypervisor: fake.New(fake.Config{})}, alive: true}
	for _, name := range []string{"web01", "private"} {
		def := vmmanager.Definition{Name: name, Text: []byte("vm " + name)}
		if err := p.hv.Define(t.Context(), def); err != nil {
			t.Fatal(err)
		}
	}
	p.alpha = p.node(t, "alpha", &looked{Hypervisor: fake.New(fake.Config{})})
	p.beta = p.node(t, "beta", p.hv)
	return p
}

// node is the lookout of one, which has one module with a copy on both.
func (p *pair) node(t *testing.T, name cluster.NodeID, hv vmmanager.Hypervisor) *Lookout {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "console.token"), []byte("a secret that nobody reads\n"),
		0o600); err != nil {
		t.Fatal(err)
	}
	m := appmodules.Default()
	m.Name, m.Nodes, m.Spec = "web01", []string{"alpha", "beta"}, appmodules.VM{Domain: "web01"}
	return New(Config{Dir: dir, Version: "test", Hypervisor: hv, Logger: slog.New(slog.DiscardHandler),
		Cluster: func() cluster.Config {
			return cluster.Config{Self: name, Members: []cluster.Member{{Node: "alpha"}, {Node: "beta"}}}
		},
		View: func() cluster.View {
			return cluster.View{Peers: map[cluster.NodeID]cluster.PeerView{"beta": {Paths: map[string]bool{"hb1": p.alive}}}}
		},
		Modules:   func() []appmodules.Module { return []appmodules.Module{m} },
		Standing:  func(string) api.NodeState { return p.stands[name] },
		Witnesses: func() []doctor.Witness { return []doctor.Witness{{Addr: "w:7430", Alive: true}} },
		Devices:   func(context.Context) []fencing.Found { return p.found },
		Guard:     func() *bool { return new(true) }, API: func() string { return "10.0.0.1:7422" },
		More: func(_ context.Context, s *support.Part) { s.Add("more.txt", []byte("of "+name)) },
		Call: func(ctx context.Context, _ cluster.NodeID, path string, out any) error {
			switch {
			case p.away != nil:
				return p.away
			case path == "doctor":
				*out.(*Reply) = p.beta.Facts(ctx)
			default:
				*out.(*support.Part) = p.beta.Part(ctx)
			}
			return nil
		}})
}

// finds reports whether the doctor said that of a node.
func finds(d api.Doctor, node, level, about, fact string) bool {
	for _, f := range d.Findings {
		if f.Node == node && f.Level == level && f.About == about && strings.Contains(f.Fact, fact) {
			return true
		}
	}
	return false
}

// TestDoctorAsksAll: this node and the others are looked at and judged together.
func TestDoctorAsksAll(t *testing.T) {
	p := newPair(t)
	d, err := p.alpha.Doctor(t.Context())
	if err != nil || d.Node != "alpha" || !finds(d, "beta", "ok", "libvirt", "fake 1.0") ||
		!finds(d, "beta", "ok", "clock", "differ") {
		t.Errorf("it says %+v, %v", d, err)
	}
	p.beta.at = time.Time{}
	p.hv.err = errors.New("libvirtd is away")
	if d, _ = p.alpha.Doctor(t.Context()); !finds(d, "beta", "problem", "libvirt", "libvirtd is away") {
		t.Errorf("a hypervisor that is away: %+v", d)
	}
	p.away, p.alive = errors.New("no route"), false
	if d, _ = p.alpha.Doctor(t.Context()); !finds(d, "beta", "problem", "node", "") {
		t.Errorf("a node that is away: %+v", d)
	}
}

// TestModuleDown: a module that runs nowhere is a problem, in the words of the node that knows why.
func TestModuleDown(t *testing.T) {
	p := newPair(t)
	p.stands = map[cluster.NodeID]api.NodeState{
		"alpha": {Role: "WAIT", Status: "NotReady", Why: "waits for beta"},
		"beta":  {Role: "STOP", Status: "NotReady", Why: "there is no network nonet"}}
	d, err := p.alpha.Doctor(t.Context())
	if err != nil || !finds(d, "", doctor.Problem, "modules",
		"web01 does not run: alpha is WAIT: waits for beta; beta is STOP: there is no network nonet") {
		t.Errorf("%+v, %v", d.Findings, err)
	}
}

// TestToMend: the doctor says what the notices of modules say, but for notes and what it looks at itself.
func TestToMend(t *testing.T) {
	p := newPair(t)
	p.stands = map[cluster.NodeID]api.NodeState{
		"alpha": {Role: "PRIM", Status: "Ready", VM: "paused", Notices: []api.Notice{
			{Level: "warning", Code: "paused", Text: "VM web01 is paused", Remedy: "virsh resume web01"},
			{Level: "note", Text: "UEFI variables"}, {Level: "warning", Code: "no-guard", Text: "no guard"},
			api.CannotDecide("the witness is silent", "beta", "VM", "")}},
		"beta": {Role: "SECOND", Status: "Ready", Notices: []api.Notice{{Level: "alarm", Text: "copies differ"}}}}
	d, err := p.alpha.Doctor(t.Context())
	said := 0
	for _, f := range d.Findings {
		if f.About == "modules" {
			said++
		}
	}
	if err != nil || said != 2 || !finds(d, "alpha", doctor.Warning, "modules", "web01: VM web01 is paused") ||
		!finds(d, "beta", doctor.Problem, "modules", "web01: copies differ") {
		t.Errorf("%+v, %v", d.Findings, err)
	}
}

// TestFacts: what is configured and what was found is told; what cannot be looked at is named.
func TestFacts(t *testing.T) {
	p := newPair(t)
	r := p.beta.Facts(t.Context())
	f := r.Facts
	if r.Ended.Before(r.Began) || f.Node != "beta" || !f.Daemon || f.API == "" || f.Guard == nil || !*f.Guard ||
		len(f.Witnesses) != 1 || len(f.Modules) != 1 || f.Modules[0].Peer != "alpha" || len(f.Unlooked) != 0 ||
		len(f.Hypervisor.VMs) != 2 {
		t.Errorf("it tells %+v", f)
	}
	p.beta.cfg.Hypervisor, p.beta.at = mute{p.hv}, time.Time{}
	if f = p.beta.Facts(t.Context()).Facts; len(f.Unlooked) != 1 {
		t.Errorf("a hypervisor that cannot be asked: %+v", f)
	}
	routes := []doctor.Route{{To: "beta", Network: "hb1",
		Probes: []doctor.Probe{{Proto: doctor.UDP}, {Proto: doctor.TCP}}},
		{To: "beta", Network: "hb2", Probes: []doctor.Probe{{Proto: doctor.UDP}}}}
	if p.alpha.heartbeats(routes); routes[0].Probes[0].State != doctor.Open || routes[0].Probes[1].State != "" ||
		routes[1].Probes[0].State != doctor.Silent {
		t.Errorf("heartbeats say %+v", routes)
	}
}

// TestDevices: fence devices that were tried are told, and one that has not answered yet is not taken for broken.
func TestDevices(t *testing.T) {
	p := newPair(t)
	p.found = []fencing.Found{{Node: "alpha", Device: "bmc", Problem: "unknown password"},
		{Node: "alpha", Device: "psu1", Unknown: true}, {Node: "alpha", Device: "psu2"}}
	d, err := p.alpha.Doctor(t.Context())
	if err != nil || !finds(d, "beta", "warning", "fence", "bmc could not switch alpha off: unknown password") ||
		!finds(d, "beta", "note", "unlooked", "fence device psu1 of alpha") || !finds(d, "beta", "ok", "fence", "psu2") {
		t.Errorf("it says %+v, %v", d, err)
	}
}

// TestTargets: ping targets are asked where a module goes by them, and only there.
func TestTargets(t *testing.T) {
	p := newPair(t)
	asked := 0
	p.beta.ping = func(_ context.Context, targets []string) []ping.Target {
		asked++
		return []ping.Target{{Addr: "10.0.0.254"}}
	}
	m := p.beta.cfg.Modules()[0]
	m.Policy.Arbitration = "available"
	p.beta.cfg.Modules = func() []appmodules.Module { return []appmodules.Module{m} }
	if f := p.beta.Facts(t.Context()).Facts; f.Targets != nil || asked > 0 {
		t.Errorf("although the witness decides: %+v", f.Targets)
	}
	p.beta.cfg.Witnesses = func() []doctor.Witness { return nil }
	p.beta.at = time.Time{}
	if f := p.beta.Facts(t.Context()).Facts; len(f.Targets) != 1 || f.Targets[0].Answers || asked != 1 {
		t.Errorf("it tells %+v", f.Targets)
	}
	if d, _ := p.alpha.Doctor(t.Context()); !finds(d, "beta", "warning", "ping", "no ping target answers (10.0.0.254)") {
		t.Errorf("the doctor says %+v", d)
	}
}

// TestHungDisk: a file system that hangs is named, and holds up neither this look nor the next one.
func TestHungDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		free := make(chan bool)
		var began atomic.Int64
		p.beta.measure = func(string, []string) []doctor.Space {
			began.Add(1)
			<-free
			return []doctor.Space{{Dir: "/", Free: began.Load()}}
		}
		for range 2 {
			f := p.beta.Facts(t.Context()).Facts
			if !strings.Contains(strings.Join(f.Unlooked, " "), "free space") || f.Hypervisor.Name == "" || began.Load() != 1 {
				t.Errorf("while it hangs: %+v, %d measurements", f, began.Load())
			}
			p.beta.at = time.Time{}
		}
		close(free)
		synctest.Wait()
		if f := p.beta.Facts(t.Context()).Facts; len(f.Unlooked) > 0 || f.Host.Spaces[0].Free != 2 {
			t.Errorf("once it answers: %+v", f)
		}
	})
}

// TestLooksLast: many who ask at once cost one look; a look that was cut short does not last.
func TestLooksLast(t *testing.T) {
	p := newPair(t)
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	p.beta.Facts(gone)
	if !p.beta.at.IsZero() {
		t.Error("a look that was cut short lasts")
	}
	before := p.hv.looks.Load()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() { p.beta.Facts(t.Context()) })
	}
	wg.Wait()
	if n := p.hv.looks.Load() - before; n > 4 { // a look is quick, and lasts for half a second
		t.Errorf("8 who ask at once cost %d looks", n)
	}
}

// unzip is what support writes, by name.
func unzip(t *testing.T, l *Lookout) map[string]string {
	t.Helper()
	write, err := l.Support(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := write(&b); err != nil {
		t.Fatal(err)
	}
	z, err := zip.NewReader(bytes.NewReader(b.Bytes()), int64(b.Len()))
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, f := range z.File {
		text, err := fs.ReadFile(z, f.Name)
		if err != nil {
			t.Fatal(err)
		}
		out[f.Name] = string(text)
	}
	return out
}

// TestElsewhere: a VM that is not here is found on the node that has it; a node that cannot say is named.
func TestElsewhere(t *testing.T) {
	p := newPair(t)
	for _, c := range []struct {
		vm      string
		away    error
		err     error
		on      []string
		missing string
	}{
		{"private", nil, nil, []string{"beta"}, ""},
		{"db01", nil, nil, nil, ""},
		{"private", errors.New("silent"), nil, nil, "beta does not answer"},
		{"private", nil, errors.New("no libvirtd"), nil, "no libvirtd"},
	} {
		p.away, p.hv.err, p.beta.at = c.away, c.err, time.Time{}
		on, missing := p.alpha.Elsewhere(t.Context(), c.vm)
		if !slices.Equal(on, c.on) || len(missing) > 1 || !strings.Contains(strings.Join(missing, " "), c.missing) ||
			(c.missing == "") != (len(missing) == 0) {
			t.Errorf("%s, %v, %v: on %q, missing %q", c.vm, c.away, c.err, on, missing)
		}
	}
}

// TestSupportOfAll: all parts are in it, of protected VMs only, without secrets; who does not answer is named.
func TestSupportOfAll(t *testing.T) {
	p := newPair(t)
	p.alpha.cfg.Hypervisor.(*looked).err = errors.New("libvirtd wants a secret that nobody reads")
	got := unzip(t, p.alpha)
	for name, want := range map[string]string{"alpha/doctor.json": `"findings"`, "alpha/more.txt": "of alpha",
		"beta/more.txt": "of beta", "beta/facts.json": `"daemon": true`, "beta/vms/web01.xml": "vm web01"} {
		if !strings.Contains(got[name], want) {
			t.Errorf("%s lacks %q: %.200q", name, want, got[name])
		}
	}
	for name, text := range got {
		if strings.Contains(name, "private") || strings.Contains(text, "a secret that nobody reads") {
			t.Errorf("%s is in it: %.200q", name, text)
		}
	}
	p.away, p.alive = errors.New("no route"), false
	if got = unzip(t, p.alpha); !strings.Contains(got[support.LeftOut], "beta: everything: no route") ||
		got["alpha/facts.json"] == "" {
		t.Errorf("left out: %s", got[support.LeftOut])
	}
	p.away = nil
	p.hv.err, p.beta.at = errors.New("libvirtd is away"), time.Time{}
	if part := p.beta.Part(t.Context()); !strings.Contains(strings.Join(part.Left, " "), "definitions of VMs: libvirtd") {
		t.Errorf("what is missing: %q", part.Left)
	}
}
