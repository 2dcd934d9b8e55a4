package node

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"duet/appmodules/workload"
	"duet/cluster/mux"
	"duet/cmd/duet/setup"
	"duet/console/api"
	"duet/vmmanager"
	"duet/vmmanager/fake"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("github.com/golang/glog.(*fileSink).flushDaemon"),
		goleak.IgnoreTopFunction("github.com/hashicorp/memberlist.(*Memberlist).probeNode")) // see cluster/gossip
}

// pair is a cluster of two nodes in this process, on addresses of the loopback
// network, with fake hypervisors and everything else real.
type pair struct {
	t    *testing.T
	port int
	a, b *member
}

// member is what stays when its node stops.
type member struct {
	name string
	dir  string
	ip   string
	hv   workload.Hypervisor // a hypervisor, but in tests of what dies in it
	node *Node
	// guard is the socket of its guard; empty: there is none.
	guard string
}

// hypervisor is the fake one, whose definitions name their disk in the text, as real ones do.
type hypervisor struct{ *fake.Hypervisor }

// Define keeps the disks that the text names: vda if it names none.
func (h hypervisor) Define(ctx context.Context, def vmmanager.Definition) error {
	if len(def.Disks) == 0 {
		for _, word := range append(strings.Fields(string(def.Text)), "vda") {
			if strings.HasPrefix(word, "vd") && (word != "vda" || len(def.Disks) == 0) {
				def.Disks = append(def.Disks, vmmanager.Disk{Target: word, Format: "raw", Size: 8 << 20})
			}
		}
	}
	return h.Hypervisor.Define(ctx, def)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, os.ErrNotExist)
}

// freePort finds a port whose two successors are free too, on both addresses.
func freePort(t *testing.T) int {
	t.Helper()
	for range 50 {
		ln, err := net.Listen("tcp", "127.0.50.1:0")
		must(t, err)
		port := ln.Addr().(*net.TCPAddr).Port
		ln.Close()
		free := port < 65000
		for _, ip := range []string{"127.0.50.1", "127.0.50.2"} {
			for i := range 3 {
				l, err := net.Listen("tcp", fmt.Sprintf("%s:%d", ip, port+i))
				if err != nil {
					free = false
					continue
				}
				l.Close()
			}
		}
		if free {
			return port
		}
	}
	t.Fatal("no free ports")
	return 0
}

func newPair(t *testing.T) *pair {
	t.Helper()
	p := &pair{t: t, port: freePort(t)}
	base, err := os.MkdirTemp("", "dn") // short: unix sockets lie in it
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(base) })
	for i, name := range []string{"alpha", "beta"} {
		m := &member{name: name, dir: filepath.Join(base, name), ip: fmt.Sprintf("127.0.50.%d", i+1),
			hv: hypervisor{fake.New(fake.Config{})}}
		if i == 0 {
			p.a = m
		} else {
			p.b = m
		}
	}
	on := setup.OnDisk{Dial: mux.DialJoin}
	_, err = on.Init(t.Context(), setup.InitRequest{Dir: p.a.dir, Cluster: "test", Node: "alpha", Port: p.port,
		Detection: time.Second,
		Addrs:     []setup.Addr{{Network: "hb1", IP: p.a.ip}}, Ping: []string{"127.0.0.1"}})
	must(t, err)
	p.start(p.a)
	must(t, p.join())
	if err := p.join(); err == nil {
		t.Error("a node joined twice")
	}
	p.start(p.b)
	return p
}

// join makes beta a member of alpha's cluster.
func (p *pair) join() error {
	p.t.Helper()
	token, err := p.a.node.NewToken(p.t.Context(), 0)
	must(p.t, err)
	_, err = setup.OnDisk{Dial: mux.DialJoin}.Join(p.t.Context(),
		setup.JoinRequest{Dir: p.b.dir, At: fmt.Sprintf("%s:%d", p.a.ip, p.port),
			Token: token.Token, Node: "beta", Addrs: []setup.Addr{{Network: "hb1", IP: p.b.ip}}})
	return err
}

// start boots the daemon of a member.
func (p *pair) start(m *member) {
	p.t.Helper()
	n, err := New(Config{Dir: m.dir, Socket: filepath.Join(m.dir, "s"), RunDir: filepath.Join(m.dir, "r"),
		Version: "test", SpareAfter: time.Second, Listen: fmt.Sprintf("%s:%d", m.ip, p.port+2), // one computer is both
		Hypervisor: m.hv, MinFree: 1 << 20, FencePath: []string{filepath.Dir(m.dir)},
		ImageDirs: []string{filepath.Dir(m.dir)}, Guard: m.guard,
		Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
	must(p.t, err)
	must(p.t, n.Start())
	m.node = n
	p.t.Cleanup(func() { p.stop(m) })
}

func (p *pair) stop(m *member) {
	p.t.Helper()
	if m.node == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := m.node.Stop(ctx); err != nil {
		p.t.Error(err)
	}
	m.node = nil
}

// define makes a VM with one raw disk on a member.
func (p *pair) define(m *member, name string, size int64) string {
	p.t.Helper()
	image := filepath.Join(m.dir, name+".img")
	f, err := os.Create(image)
	must(p.t, err)
	must(p.t, errors.Join(f.Truncate(size), f.Close()))
	must(p.t, m.hv.Define(p.t.Context(), vmmanager.Definition{Name: name, Text: []byte("vm " + name),
		Disks: []vmmanager.Disk{{Target: "vda", Path: image, Format: "raw", Size: size}}}))
	return image
}

func until(t *testing.T, what string, cond func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		err := cond()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("waited in vain: %s: %v", what, err)
		}
	}
}

// is waits until m says of itself that a module has a role and is Ready.
func (p *pair) is(m *member, module, role string) {
	p.t.Helper()
	until(p.t, fmt.Sprintf("%s is %s on %s", module, role, m.name), func() error {
		s, err := m.node.Status(p.t.Context())
		if err != nil {
			return err
		}
		mod, err := s.Module(module)
		if err != nil {
			return err
		}
		st, err := mod.On(m.name)
		if err == nil && (st.Role != role || st.Status != "Ready" && role != "STOP") {
			err = fmt.Errorf("%s (%s): %s", st.Role, st.Status, st.Why)
		}
		return err
	})
}

// ended follows a task to its end.
func (p *pair) ended(m *member, t api.Task, err error) api.Task {
	p.t.Helper()
	must(p.t, err)
	until(p.t, "the task ends", func() error {
		t, err = m.node.Task(p.t.Context(), t.ID)
		if err == nil && !t.Done {
			err = errors.New(t.Step)
		}
		return err
	})
	return t
}

// finish follows a task to its good end.
func (p *pair) finish(m *member, t api.Task, err error) api.Task {
	p.t.Helper()
	t = p.ended(m, t, err)
	if t.Error != "" {
		p.t.Fatalf("task %s failed: %s", t.Kind, t.Error)
	}
	return t
}

func (p *pair) protected(name string) {
	p.t.Helper()
	p.protectedBy(name, available)
}

// protectedBy protects and starts a VM with a configuration.
func (p *pair) protectedBy(name, config string) {
	p.t.Helper()
	p.define(p.a, name, 8<<20)
	task, err := p.a.node.Protect(p.t.Context(), name, api.ProtectRequest{Config: config})
	p.finish(p.a, task, err)
	_, err = p.a.node.Act(p.t.Context(), name, api.Start, api.ActionRequest{})
	must(p.t, err)
	p.is(p.a, name, "PRIM")
	p.is(p.b, name, "SECOND")
}

// TestLifeOfAModule: protect, start, swap from the other node, verify, log, stop,
// restart of a daemon, release.
func TestLifeOfAModule(t *testing.T) {
	p := newPair(t)
	ctx := t.Context()
	p.protected("web01")
	if _, err := p.b.node.Act(ctx, "web01", api.Swap, api.ActionRequest{}); err != nil {
		t.Fatal(err)
	}
	p.is(p.b, "web01", "PRIM")
	p.is(p.a, "web01", "SECOND")
	task, err := p.b.node.Verify(ctx, "web01/vda", false)
	if done := p.finish(p.b, task, err); !strings.Contains(done.Result, "identical") {
		t.Errorf("verify: %s", done.Result)
	}
	if _, err := p.b.node.Verify(ctx, "web01/vdz", false); !errors.Is(err, api.ErrNotFound) ||
		!strings.Contains(err.Error(), "web01/vda") {
		t.Errorf("a volume that is not there: %v", err)
	}
	if _, err := p.a.node.Verify(ctx, "web01/vda", false); !errors.Is(err, api.ErrConflict) ||
		!strings.Contains(err.Error(), "beta") {
		t.Errorf("verify on the secondary: %v", err)
	}
	log, err := p.a.node.Log(ctx, "web01", 100)
	must(t, err)
	for _, node := range []string{"alpha", "beta"} {
		if !slices.ContainsFunc(log, func(e api.LogEntry) bool { return e.Node == node && e.Why != "" }) {
			t.Errorf("the log has nothing of %s", node)
		}
	}
	p.stop(p.b)
	p.start(p.b)
	p.is(p.b, "web01", "PRIM")
	p.is(p.a, "web01", "SECOND")
	_, err = p.a.node.Act(ctx, "web01", api.Stop, api.ActionRequest{})
	must(t, err)
	p.is(p.a, "web01", "STOP")
	p.is(p.b, "web01", "STOP")
	if _, err := p.a.node.Release(ctx, "web01", api.ReleaseRequest{}); !errors.Is(err, api.ErrConflict) ||
		!strings.Contains(err.Error(), "beta") {
		t.Errorf("release where the newest data are not: %v", err)
	}
	task, err = p.b.node.Release(ctx, "web01", api.ReleaseRequest{})
	p.finish(p.b, task, err)
	for _, m := range []*member{p.a, p.b} {
		if s, _ := m.node.Status(ctx); len(s.Modules) != 0 {
			t.Errorf("%s still has %+v", m.name, s.Modules)
		}
	}
	if def, err := p.b.hv.Definition(ctx, "web01"); err != nil || len(def.Disks) != 1 ||
		!strings.HasSuffix(def.Disks[0].Path, "vda.raw") {
		t.Errorf("the released VM is %+v, %v", def, err)
	}
}

// TestTwoDisks: the disks of a VM are one link: in step, moved and lost together.
func TestTwoDisks(t *testing.T) {
	p := newPair(t)
	ctx := t.Context()
	var images []vmmanager.Disk
	for _, target := range []string{"vda", "vdb"} {
		path := p.define(p.a, "two-"+target, 8<<20)
		images = append(images, vmmanager.Disk{Target: target, Path: path, Format: "raw", Size: 8 << 20})
	}
	must(t, p.a.hv.Define(ctx, vmmanager.Definition{Name: "two", Text: []byte("vm two"), Disks: images}))
	task, err := p.a.node.Protect(ctx, "two", api.ProtectRequest{Config: "policy: {arbitration: available}"})
	p.finish(p.a, task, err)
	_, err = p.a.node.Act(ctx, "two", api.Start, api.ActionRequest{})
	must(t, err)
	p.is(p.a, "two", "PRIM")
	p.is(p.b, "two", "SECOND")
	_, err = p.a.node.Act(ctx, "two", api.Swap, api.ActionRequest{})
	must(t, err)
	p.is(p.b, "two", "PRIM")
	p.is(p.a, "two", "SECOND")
	for _, v := range []string{"two/vda", "two/vdb"} {
		task, err := p.b.node.Verify(ctx, v, false)
		if done := p.finish(p.b, task, err); !strings.Contains(done.Result, "identical") {
			t.Errorf("verify of %s: %s", v, done.Result)
		}
	}
	p.stop(p.a)
	p.is(p.b, "two", "ALONE")
	p.start(p.a)
	p.is(p.b, "two", "PRIM")
	p.is(p.a, "two", "SECOND")
}

// TestConfig: an edit reaches the other node, also one that is away meanwhile.
func TestConfig(t *testing.T) {
	p := newPair(t)
	ctx := t.Context()
	p.protected("web01")
	c, err := p.a.node.Config(ctx, "web01")
	must(t, err)
	edit := func(from, to string) string { return strings.Replace(c.YAML, from, to, 1) }
	for text, want := range map[string]string{
		edit("max: 3", "max: -1"):                "policy.restart.max",
		edit("arbitration:", "arbitation:"):      "arbitation",
		edit("size: 8388608", "size: 16777216"):  "cannot be edited",
		edit("domain: web01", "domain: another"): "cannot be edited",
		edit("- beta", "- gamma"):                "gamma",
	} {
		if err := p.a.node.Check(ctx, text); !errors.Is(err, api.ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("check says %v, want %q in it", err, want)
		}
	}
	p.stop(p.b)
	p.is(p.a, "web01", "ALONE")
	_, err = p.a.node.Apply(ctx, edit("max: 3", "max: 7"), 0)
	must(t, err)
	p.start(p.b)
	until(t, "the edit is on beta", func() error {
		got, err := p.b.node.Config(ctx, "web01")
		if err == nil && !strings.Contains(got.YAML, "max: 7") {
			err = errors.New("it is not")
		}
		return err
	})
	p.is(p.a, "web01", "PRIM")
	p.is(p.b, "web01", "SECOND")
}

// TestMetrics: every layer shows.
func TestMetrics(t *testing.T) {
	p := newPair(t)
	p.protected("web01")
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(p.a.dir, "s"))
	}
	tr := &http.Transport{DialContext: dial}
	defer tr.CloseIdleConnections()
	for _, want := range []string{
		`duet_module_state{module="web01",role="PRIM",status="Ready"} 1`, `duet_module_epoch{module="web01"} 1`,
		`duet_node_alive{node="beta"} 1`, `duet_heartbeat_path_alive{network="hb1",node="beta"} 1`,
		`duet_volume_dirty_bytes{module="web01",volume="vda"}`, `duet_volume_replication_lag_seconds{`,
		`duet_volume_resync_bytes_per_second{`,
		`duet_volume_write_seconds_bucket{`, `duet_failovers_total{module="web01"} 0`,
		`duet_volume_proof_age_seconds{module="web01",volume="vda"}`,
		`duet_volume_differs_bytes{module="web01",volume="vda"} 0`,
	} {
		until(t, "metric "+want, func() error {
			resp, err := (&http.Client{Transport: tr}).Get("http://duet/metrics")
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			body, err := io.ReadAll(resp.Body)
			if err == nil && !strings.Contains(string(body), want) {
				err = errors.New("not there")
			}
			return err
		})
	}
}

// TestAccess: over TLS nobody gets in without the token or a certificate of the cluster.
func TestAccess(t *testing.T) {
	p := newPair(t)
	addr := fmt.Sprintf("https://%s:%d/v1/status", p.a.ip, p.port+2)
	// Who is let in is tested, not whom we trust.
	tr := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	defer tr.CloseIdleConnections()
	for token, want := range map[string]int{"": http.StatusUnauthorized, "wrong": http.StatusUnauthorized,
		readToken(t, p.a): http.StatusOK} {
		req, err := http.NewRequest(http.MethodGet, addr, nil)
		must(t, err)
		req.Header.Set("Authorization", "Bearer "+token)
		resp, err := (&http.Client{Transport: tr}).Do(req)
		must(t, err)
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("token %q: %d, want %d", token, resp.StatusCode, want)
		}
	}
}

func readToken(t *testing.T, m *member) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(m.dir, setup.TokenFile))
	must(t, err)
	return strings.TrimSpace(string(b))
}

// TestProtectFails: what cannot be done changes nothing.
func TestProtectFails(t *testing.T) {
	p := newPair(t)
	ctx := t.Context()
	p.define(p.a, "web01", 8<<20)
	p.stop(p.b)
	task, err := p.a.node.Protect(ctx, "web01", api.ProtectRequest{})
	task = p.ended(p.a, task, err)
	if !strings.Contains(task.Error, "beta") {
		t.Errorf("protect without the peer: %q", task.Error)
	}
	if s, _ := p.a.node.Status(ctx); len(s.Modules) != 0 {
		t.Error("a failed protect left a module")
	}
	if def, _ := p.a.hv.Definition(ctx, "web01"); string(def.Text) != "vm web01" {
		t.Errorf("a failed protect left the VM as %q", def.Text)
	}
}
