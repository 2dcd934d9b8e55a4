package setup_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"duet/cluster"
	"duet/cluster/enroll"
	"duet/cluster/pki"
	"duet/cmd/duet/setup"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func addrs(t *testing.T, in ...string) []setup.Addr {
	t.Helper()
	out, err := setup.ParseAddrs(in)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func founding(t *testing.T, dir string) setup.InitRequest {
	t.Helper()
	return setup.InitRequest{
		Dir: dir, Cluster: "office", Node: "alpha", Addrs: addrs(t, "10.0.0.1", "san=10.1.0.1"),
		Port: cluster.DefaultPort, Detection: cluster.DefaultDetection,
	}
}

// stored reads what a daemon would find in dir.
func stored(t *testing.T, dir string) (cluster.Config, *pki.Identity) {
	t.Helper()
	file := filepath.Join(dir, setup.ConfigFile)
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode of %s: %v, %v", file, info.Mode(), err)
	}
	var conf cluster.Config
	if err := json.Unmarshal(b, &conf); err != nil {
		t.Fatal(err)
	}
	id, err := pki.Load(filepath.Join(dir, setup.PKIFolder))
	if err != nil {
		t.Fatal(err)
	}
	return conf, id
}

// names lists a directory, so that leftovers show.
func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

func TestInit(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "duet")
	if _, err := (setup.OnDisk{}).Init(t.Context(), founding(t, dir)); err != nil {
		t.Fatal(err)
	}
	conf, id := stored(t, dir)
	if conf.Self != "alpha" || conf.Name != "office" || id.Node() != "alpha" || len(conf.GossipKeys) != 1 ||
		len(conf.GossipKeys[0]) != 32 {
		t.Errorf("%+v", conf)
	}
	if got := conf.Paths("alpha", true); !slices.Equal(got, []string{"10.0.0.1", "10.1.0.1"}) {
		t.Errorf("paths %v", got)
	}
	if got := names(t, dir); !slices.Equal(got, []string{"cluster.json", "pki"}) {
		t.Errorf("files %v", got)
	}
	before, _ := os.ReadFile(filepath.Join(dir, setup.ConfigFile))
	if _, err := (setup.OnDisk{}).Init(t.Context(), founding(t, dir)); !errors.Is(err, pki.ErrExists) {
		t.Errorf("second init: %v", err)
	}
	if after, _ := os.ReadFile(filepath.Join(dir, setup.ConfigFile)); string(after) != string(before) {
		t.Error("the second init changed cluster.json")
	}
}

// TestInitAgain: an init that was cut off at any point is done again as if it never was.
func TestInitAgain(t *testing.T) {
	dir := t.TempDir()
	if _, err := (setup.OnDisk{}).Init(t.Context(), founding(t, dir)); err != nil {
		t.Fatal(err)
	}
	pkiDir := filepath.Join(dir, setup.PKIFolder)
	if err := os.Rename(pkiDir, pkiDir+".new"); err != nil { // the instant before the last step
		t.Fatal(err)
	}
	if _, err := (setup.OnDisk{}).Init(t.Context(), founding(t, dir)); err != nil {
		t.Fatal(err)
	}
	stored(t, dir)
	if got := names(t, dir); !slices.Equal(got, []string{"cluster.json", "pki"}) {
		t.Errorf("files %v", got)
	}
}

func TestInitRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(*setup.InitRequest)
		want  string
	}{
		"port":      {func(r *setup.InitRequest) { r.Port = 65534 }, "1 to 65533"},
		"detection": {func(r *setup.InitRequest) { r.Detection = time.Millisecond }, "detection"},
		"ping":      {func(r *setup.InitRequest) { r.Ping = []string{"gw.example.com"} }, "IP address"},
		"node":      {func(r *setup.InitRequest) { r.Node = "../x" }, "node name"},
	} {
		dir := t.TempDir()
		r := founding(t, dir)
		c.spoil(&r)
		if _, err := (setup.OnDisk{}).Init(t.Context(), r); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
		if _, err := os.Stat(filepath.Join(dir, setup.ConfigFile)); err == nil {
			t.Errorf("%s: a refused init left cluster.json", name)
		}
	}
}

// memory is a pki.TokenStore.
type memory struct{ records []enroll.Record }

func (m *memory) Tokens() ([]enroll.Record, error)        { return m.records, nil }
func (m *memory) SetTokens(records []enroll.Record) error { m.records = records; return nil }

// open runs the first node's desk and returns its address and a token.
func open(t *testing.T, dir string) (string, string) {
	t.Helper()
	conf, id := stored(t, dir)
	door := pki.NewAdmission(pki.AdmissionConfig{
		Identity: id, Tokens: &memory{}, Cluster: func() cluster.Config { return conf },
		Admit: func(_ context.Context, m cluster.Member) (cluster.Config, error) {
			conf.Members = append(conf.Members, m)
			return conf, nil
		},
	})
	tok, err := door.NewToken(time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := tls.Listen("tcp", "127.0.0.1:0", id.Server())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- door.Serve(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return ln.Addr().String(), tok.String()
}

func dial(ctx context.Context, addr string, conf *tls.Config) (net.Conn, error) {
	return (&tls.Dialer{Config: conf}).DialContext(ctx, "tcp", addr)
}

func TestJoin(t *testing.T) {
	first, second := t.TempDir(), t.TempDir()
	if _, err := (setup.OnDisk{}).Init(t.Context(), founding(t, first)); err != nil {
		t.Fatal(err)
	}
	at, tok := open(t, first)
	on := setup.OnDisk{Dial: dial}
	r := setup.JoinRequest{Dir: second, At: at, Token: tok, Node: "beta", Addrs: addrs(t, "10.0.0.2")}
	if _, err := on.Join(t.Context(), r); !errors.Is(err, pki.ErrBadRequest) {
		t.Errorf("one network is missing: %v", err)
	}
	r.Addrs = addrs(t, "10.0.0.2", "san=10.1.0.2")
	if _, err := on.Join(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	conf, id := stored(t, second)
	if conf.Self != "beta" || id.Node() != "beta" || len(conf.Members) != 2 || len(conf.GossipKeys) != 1 {
		t.Errorf("%+v", conf)
	}
	if _, err := on.Join(t.Context(), r); !errors.Is(err, pki.ErrExists) {
		t.Errorf("second join: %v", err)
	}
	r.Dir, r.Token = t.TempDir(), "duet1.x"
	if _, err := on.Join(t.Context(), r); !errors.Is(err, enroll.ErrMalformed) {
		t.Errorf("bad token: %v", err)
	}
}

// TestLeaveAndRejoin: a node leaves and nothing of it is deleted; one that cannot join again is as before; one that can
// has its name and addresses.
func TestLeaveAndRejoin(t *testing.T) {
	first, second := t.TempDir(), t.TempDir()
	if _, err := (setup.OnDisk{}).Init(t.Context(), founding(t, first)); err != nil {
		t.Fatal(err)
	}
	at, tok := open(t, first)
	on := setup.OnDisk{Dial: dial}
	r := setup.JoinRequest{Dir: second, At: at, Token: tok, Node: "beta", Addrs: addrs(t, "10.0.0.2", "san=10.1.0.2")}
	if _, err := on.Join(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	image := filepath.Join("volumes", "web01.raw")
	if err := os.MkdirAll(filepath.Join(second, "volumes"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(second, image), []byte("data"), 0o600); err != nil {
		t.Fatal(err)
	}
	token := filepath.Join(second, setup.TokenFile)
	if err := os.WriteFile(token, []byte("as Prometheus has it"), 0o600); err != nil {
		t.Fatal(err)
	}
	again := setup.JoinRequest{Dir: second, At: at, Token: tok}
	if _, _, err := on.Rejoin(t.Context(), again, time.Unix(0, 0)); err == nil { // the token was good once
		t.Fatal("joined by a token that was used")
	}
	if conf, id := stored(t, second); conf.Self != "beta" || id.Node() != "beta" {
		t.Errorf("after it could not join: %+v", conf)
	}
	if b, err := os.ReadFile(filepath.Join(second, image)); err != nil || string(b) != "data" {
		t.Errorf("after it could not join its image is %q, %v", b, err)
	}
	again.At, again.Token = open(t, first)
	conf, aside, err := on.Rejoin(t.Context(), again, time.Unix(0, 0))
	if err != nil {
		t.Fatal(err)
	}
	me, _ := conf.Member("beta")
	if conf.Self != "beta" || me.Addrs["hb1"] != "10.0.0.2" || me.Addrs["san"] != "10.1.0.2" {
		t.Errorf("joined again as %+v", me)
	}
	if b, err := os.ReadFile(filepath.Join(aside, image)); err != nil || string(b) != "data" {
		t.Errorf("what it had: %q, %v", b, err)
	}
	if b, err := os.ReadFile(token); err != nil || string(b) != "as Prometheus has it" {
		t.Errorf("the token of its API: %q, %v", b, err)
	}
	if aside, err = on.Leave(second, time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(second)
	if err != nil || len(left) != 2 { // two folders of what it had
		t.Errorf("after it left: %v, %v", left, err)
	}
	if _, err := on.Leave(second, time.Unix(2, 0)); err == nil {
		t.Error("a node of no cluster leaves one")
	}
	for _, name := range []string{setup.PKIFolder, setup.TokenFile} {
		if _, err := os.Stat(filepath.Join(aside, name)); err != nil {
			t.Error(err)
		}
	}
}

// TestLeaveTwiceInASecond: the folder of an earlier leave is not used again, whatever comes of the later one.
func TestLeaveTwiceInASecond(t *testing.T) {
	dir, now := t.TempDir(), time.Unix(0, 0)
	on := setup.OnDisk{}
	var kept []string
	for _, name := range []string{"first", "second"} {
		r := founding(t, dir)
		r.Cluster = name
		if _, err := on.Init(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		aside, err := on.Leave(dir, now)
		if err != nil {
			t.Fatal(err)
		}
		kept = append(kept, aside)
	}
	for i, name := range []string{"first", "second"} {
		if conf, _ := stored(t, kept[i]); conf.Name != name {
			t.Errorf("%s holds cluster %s, want %s", kept[i], conf.Name, name)
		}
	}
}

// TestLeaveCutOff: what a crash left of a leave, at any point, is no member; it is left by the next leave, and until
// then no other cluster gets its store.
func TestLeaveCutOff(t *testing.T) {
	on := setup.OnDisk{}
	// The order in which files go, and one of an older release.
	for _, gone := range [][]string{{"pki"}, {"pki", "log"}, {"pki", "cluster.json"}} {
		dir := t.TempDir()
		if _, err := on.Init(t.Context(), founding(t, dir)); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"db", "log"} {
			if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
				t.Fatal(err)
			}
		}
		for _, name := range gone {
			if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
		_, err := on.Init(t.Context(), founding(t, dir))
		if err == nil || !strings.Contains(err.Error(), "duet cluster leave") {
			t.Errorf("without %v: init says %v", gone, err)
		}
		aside, err := on.Leave(dir, time.Unix(0, 0))
		if err != nil {
			t.Fatalf("without %v: %v", gone, err)
		}
		if got := names(t, dir); len(got) != 1 || !slices.Contains(names(t, aside), "db") {
			t.Errorf("without %v: %v is left, %v is kept", gone, got, names(t, aside))
		}
		if _, err := on.Init(t.Context(), founding(t, dir)); err != nil {
			t.Errorf("without %v: %v", gone, err)
		}
	}
}

// TestDefaultPort: an address without a port is called on the usual one.
func TestDefaultPort(t *testing.T) {
	first := t.TempDir()
	if _, err := (setup.OnDisk{}).Init(t.Context(), founding(t, first)); err != nil {
		t.Fatal(err)
	}
	_, tok := open(t, first)
	for at, want := range map[string]string{"10.0.0.1": "10.0.0.1:7420", "fd00::1": "[fd00::1]:7420",
		"[fd00::1]": "[fd00::1]:7420", "[fd00::1]:99": "[fd00::1]:99", "alpha": "alpha:7420", "": ""} {
		called := ""
		on := setup.OnDisk{Dial: func(_ context.Context, addr string, _ *tls.Config) (net.Conn, error) {
			called = addr
			return nil, errors.New("not today")
		}}
		_, err := on.Join(t.Context(), setup.JoinRequest{Dir: t.TempDir(), At: at, Token: tok, Node: "beta",
			Addrs: addrs(t, "10.0.0.2")})
		if err == nil || called != want {
			t.Errorf("%q: called %q, want %q (%v)", at, called, want, err)
		}
	}
}

func TestParseAddrs(t *testing.T) {
	got := addrs(t, "10.0.0.1", "san=10.1.0.1", "fd00::1", "::ffff:10.2.0.1")
	want := []setup.Addr{{Network: "hb1", IP: "10.0.0.1"}, {Network: "san", IP: "10.1.0.1"},
		{Network: "hb3", IP: "fd00::1"}, {Network: "hb4", IP: "10.2.0.1"}}
	if !slices.Equal(got, want) {
		t.Errorf("%v", got)
	}
	for _, in := range [][]string{
		nil, {""}, {"alpha"}, {"10.0.0.1:80"}, {"0.0.0.0"}, {"::"}, {"224.0.0.1"}, {"fe80::1%eth0"}, {"=10.0.0.1"},
		{"a b=10.0.0.1"},
		{"hb2=10.0.0.1", "10.0.0.2"}, {"10.0.0.1", "10.0.0.1"}, {"10.0.0.1", "::ffff:10.0.0.1"},
	} {
		if got, err := setup.ParseAddrs(in); err == nil {
			t.Errorf("%q was read as %v", in, got)
		}
	}
}
