package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"duet/cluster"
	"duet/cmd/duet/setup"
	"duet/console"
	"duet/console/api"
	"duet/console/api/apitest"
)

func TestMain(m *testing.M) {
	flag.Bool("update", false, "rewrite the golden files")
	flag.Parse()
	time.Local = time.UTC // the goldens show times
	goleak.VerifyTestMain(m)
}

// paper records a Setup's requests.
type paper struct {
	asked  []string
	member error // what Free says
}

func (p *paper) Free(string) error { return p.member }

func (p *paper) Init(_ context.Context, r setup.InitRequest) (cluster.Config, error) {
	p.asked = append(p.asked, fmt.Sprintf("init %+v", r))
	return cluster.Config{Name: r.Cluster, Self: r.Node}, nil
}

func (p *paper) Join(_ context.Context, r setup.JoinRequest) (cluster.Config, error) {
	p.asked = append(p.asked, fmt.Sprintf("join %+v", r))
	if r.At == "10.0.0.9" {
		return cluster.Config{}, errors.New("join the cluster at 10.0.0.9:7420: connection refused")
	}
	return cluster.Config{Name: "office", Self: r.Node}, nil
}

func (p *paper) Leave(dir string, _ time.Time) (string, error) {
	p.asked = append(p.asked, "leave "+dir)
	return dir + "/left-20260314-150926", nil
}

func (p *paper) Rejoin(_ context.Context, r setup.JoinRequest, _ time.Time) (cluster.Config, string, error) {
	p.asked = append(p.asked, fmt.Sprintf("rejoin %+v", r))
	return cluster.Config{Name: "office", Self: "beta"}, r.Dir + "/left-20260314-150926", nil
}

// output is a buffer that may be read while it is written.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// bench is one command line before a node.
type bench struct {
	*app
	node     *apitest.Backend
	paper    *paper
	socket   string
	out, err *output
}

// newBench serves a fake node on a socket, unless it is to be away, and gives a command line for it.
func newBench(t *testing.T, away bool) *bench {
	t.Helper()
	b := &bench{node: apitest.New(), paper: &paper{}, out: &output{}, err: &output{},
		socket: filepath.Join(t.TempDir(), "d.sock")}
	now := apitest.Now()
	b.app = &app{
		in: strings.NewReader(""), out: b.out, err: b.err, width: func() int { return 80 },
		env: func(k string) string { return map[string]string{"DUET_CONNECT": "unix://" + b.socket}[k] },
		now: func() time.Time { return now }, tick: time.Millisecond, setup: b.paper, local: room{fresh()}, version: "1.0",
	}
	if away {
		return b
	}
	s, err := console.New(console.Config{Handler: api.Handler(b.node, "1.0", nil), Socket: b.socket,
		Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := s.Stop(ctx); err != nil {
			t.Error(err)
		}
	})
	return b
}

// transcript is what a run printed and its exit code, with what differs between computers replaced.
func (b *bench) transcript(code int) string {
	out := b.out.String()
	if e := b.err.String(); e != "" {
		out += "--- stderr\n" + e
	}
	if asked := strings.Join(b.paper.asked, "\n"); asked != "" {
		out += "--- asked\n" + asked + "\n"
	}
	out = strings.ReplaceAll(out, b.socket, "SOCKET")
	out = regexp.MustCompile(`go1\.[0-9.]+ \w+/\w+`).ReplaceAllString(out, "GO OS/ARCH")
	return out + fmt.Sprintf("--- exit %d\n", code)
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name+".txt")
	if flag.Lookup("update").Value.String() == "true" {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil || got != string(want) {
		t.Errorf("%s differs (-update rewrites it), %v:\n%s", path, err, got)
	}
}

// TestCommands runs each command line and compares all it printed.
func TestCommands(t *testing.T) {
	good := filepath.Join(t.TempDir(), "web01.yaml")
	if err := os.WriteFile(good, []byte("name: web01\nkind: vm\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, line, in string
		tty            bool
	}{
		{name: "help", line: "--help"},
		{name: "status", line: "status"},
		{name: "status_tty", line: "status", tty: true},
		{name: "status_node", line: "status --node beta"},
		{name: "status_nonode", line: "status --node delta"},
		{name: "status_module", line: "status web01"},
		{name: "status_module_proof", line: "status db"},
		{name: "status_module_json", line: "status db --json"},
		{name: "status_nosuch", line: "status nosuch"},
		{name: "status_quiet", line: "status db -q"},
		{name: "status_quiet_node", line: "status db -q --node beta"},
		{name: "status_quiet_stale", line: "status old -q --node gamma"},
		{name: "status_quiet_nosuch", line: "status nosuch -q"},
		{name: "status_quiet_all", line: "status -q"},
		{name: "stop", line: "stop db --node beta"},
		{name: "stop_json", line: "stop db --json"},
		{name: "stop_module", line: "stop db"},
		{name: "stop_no_wait", line: "stop db --no-wait"},
		{name: "stop_nosuch_json", line: "stop nosuch --json"},
		{name: "stop_badflag_json", line: "--json stop db --now"},
		{name: "start", line: "start db"},
		{name: "restart", line: "restart db"},
		{name: "swap", line: "swap db"},
		{name: "swap_tty", line: "swap db", tty: true},
		{name: "second", line: "second db --node beta"},
		{name: "stop_nothing", line: "stop"},
		{name: "stop_two", line: "stop db web01"},
		{name: "stop_badflag", line: "stop db --now"},
		{name: "prim_unsure", line: "prim web01 --node beta"},
		{name: "prim_yes", line: "prim web01 --node beta --yes"},
		{name: "prim_asked", line: "prim web01 --node beta", in: "yes\n", tty: true},
		{name: "prim_declined", line: "prim web01 --node beta", in: "y\n", tty: true},
		{name: "log", line: "log db"},
		{name: "log_one", line: "log db -n 1"},
		{name: "log_none", line: "log db -n 0"},
		{name: "log_all", line: "log"},
		{name: "log_since", line: "log db --since 90s"},
		{name: "log_since_bad", line: "log db --since yesterday"},
		{name: "explain", line: "explain epoch"},
		{name: "explain_state", line: "explain wait"},
		{name: "explain_nosuch", line: "explain quorum"},
		{name: "metrics_config", line: "metrics config"},
		{name: "vm_list", line: "vm list"},
		{name: "volume_list", line: "volume list"},
		{name: "volume_list_module", line: "volume list old"},
		{name: "volume_verify", line: "volume verify db/vda --repair"},
		{name: "volume_verify_bad", line: "volume verify db"},
		{name: "protect", line: "vm protect web --peer beta"},
		{name: "protect_tty", line: "vm protect web", tty: true},
		{name: "protect_nowait", line: "vm protect web --no-wait --config " + good},
		{name: "protect_image", line: "vm protect web --no-wait --image beta:vda=/dev/vg0/web --image " +
			"alpha:vda=/srv/web.raw"},
		{name: "protect_image_bad", line: "vm protect web --image /srv/web.raw"},
		{name: "install", line: "module install " + good + " --size 10G --peer beta"},
		{name: "install_size", line: "module install " + good + " --size much"},
		{name: "install_nothing", line: "module install"},
		{name: "uninstall", line: "module uninstall db"},
		{name: "protect_json", line: "vm protect web --json"},
		{name: "protect_check", line: "vm protect web --check"},
		{name: "protect_check_refused", line: "vm protect lonely --check"},
		{name: "protect_check_json", line: "vm protect lonely --check --json"},
		{name: "protect_check_nowait", line: "vm protect web --check --no-wait"},
		{name: "return", line: "vm return db --no-wait"},
		{name: "release_without_peer", line: "vm release db --without-peer --no-wait"},
		{name: "release", line: "vm release nosuch"},
		{name: "task", line: "task t1 --no-wait"},
		{name: "config_show", line: "config show db"},
		{name: "config_check", line: "config check -", in: "name: web01\n"},
		{name: "config_check_bad", line: "config check -", in: "kind: vm\n"},
		{name: "config_apply", line: "config apply " + good},
		{name: "config_set", line: "config set db policy.restart.max=5"},
		{name: "config_set_two_bad", line: "config set db policy.restart.max=5 policy.restarts=5"},
		{name: "config_set_two_half", line: "config set db policy.restart.max=5 3m"},
		{name: "config_set_twice", line: "config set db policy.restart.max=5 policy.restart.max=6"},
		{name: "config_set_nosuch", line: "config set db policy.restarts=5"},
		{name: "config_set_novalue", line: "config set db policy.restart.max"},
		{name: "config_explain", line: "config explain policy.restart"},
		{name: "config_explain_nosuch", line: "config explain policy.restarts"},
		{name: "config_nofile", line: "config apply /nonexistent.yaml"},
		{name: "cluster", line: "cluster"},
		{name: "cluster_typo", line: "cluster inti"},
		{name: "cluster_remove", line: "cluster remove beta --yes"},
		{name: "cluster_remove_answers", line: "cluster remove beta"},
		{name: "cluster_remove_unknown", line: "cluster remove gamma --yes"},
		{name: "cluster_status", line: "cluster status"},
		{name: "cluster_witness_add", line: "cluster witness add 10.0.0.7:7425 --token duetw1.x.y"},
		{name: "cluster_witness_add_port", line: "cluster witness add 10.0.0.7 --token duetw1.x.y"},
		{name: "cluster_witness_list", line: "cluster witness list"},
		{name: "cluster_witness_no_token", line: "cluster witness add 10.0.0.9:7425"},
		{name: "ping_list", line: "cluster ping list"},
		{name: "ping_set", line: "cluster ping set 10.0.0.254,fd00::1"},
		{name: "ping_remove", line: "cluster ping remove"},
		{name: "fence_list", line: "cluster fence list"},
		{name: "fence_set", line: "cluster fence set beta --agent fence_ipmilan --option ip=10.0.9.2 --option username=duet"},
		{name: "fence_set_nothing", line: "cluster fence set beta"},
		{name: "fence_test", line: "cluster fence test beta"},
		{name: "cluster_witness_remove", line: "cluster witness remove"},
		{name: "volume_diverged", line: "volume diverged"},
		{name: "volume_diverged_module", line: "volume diverged web01"},
		{name: "volume_diverged_none", line: "volume diverged db01"},
		{name: "volume_export", line: "volume export 260314-150926-k7 /tmp/old.raw"},
		{name: "volume_drop", line: "volume drop 260314-150926-k7"},
		{name: "cluster_token", line: "cluster token --life 90m"},
		{name: "cluster_token_long", line: "cluster token --life 1000h"},
		{name: "cluster_init", line: "cluster init --name office --node alpha --addr 10.0.0.1,san=10.1.0.1 --detection 3s " +
			"--ping 10.0.0.254"},
		{name: "cluster_init_json", line: "cluster init --name office --node alpha --addr 10.0.0.1 --json --dir d"},
		{name: "cluster_init_noname", line: "cluster init --node alpha --addr 10.0.0.1"},
		{name: "cluster_init_noaddr", line: "cluster init --name office --node alpha"},
		{name: "cluster_init_badaddr", line: "cluster init --name office --node alpha --addr alpha.example.com"},
		{name: "cluster_join", line: "cluster join 10.0.0.1 --node beta --addr 10.0.0.2 --token -", in: "duet1.x.y\n"},
		{name: "cluster_join_fails", line: "cluster join 10.0.0.9 --node beta --addr 10.0.0.2 --token duet1.x.y"},
		{name: "cluster_leave_running", line: "cluster leave --yes"},
		{name: "cluster_rejoin_running", line: "cluster rejoin 10.0.0.1 --token duet1.x.y --yes"},
		{name: "cluster_join_notoken", line: "cluster join 10.0.0.9 --node beta --addr 10.0.0.2"},
		{name: "version", line: "version"},
		{name: "typo", line: "stauts"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t, false)
			b.in, b.inTTY, b.outTTY = strings.NewReader(c.in), c.tty, c.tty
			golden(t, c.name, b.transcript(b.run(t.Context(), strings.Fields(c.line))))
		})
	}
}

// TestLeave: a node leaves or rejoins while its daemon is stopped, and is asked for a yes.
func TestLeave(t *testing.T) {
	for _, c := range []struct{ name, line, in string }{
		{name: "cluster_leave", line: "cluster leave --yes"},
		{name: "cluster_leave_unsure", line: "cluster leave"},
		{name: "cluster_rejoin", line: "cluster rejoin 10.0.0.1 --token duet1.x.y --yes"},
		{name: "cluster_rejoin_notoken", line: "cluster rejoin 10.0.0.1 --yes"},
	} {
		b := newBench(t, true)
		golden(t, c.name, b.transcript(b.run(t.Context(), strings.Fields(c.line))))
	}
}

// TestEdit: the editor's text is applied; if it says the same nothing is, and what is refused is not lost.
func TestEdit(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	for _, c := range []struct {
		editor, want string
		code         int
		applied      bool
	}{
		{"sed -i s/3/5/", "has configuration version 4", 0, true},
		{"true", "nothing has changed", 0, false},
		{"sed -i s/name:/nam:/", "name: missing", 1, false},
		{"false", "set EDITOR to your editor", 1, false},
	} {
		b := newBench(t, false)
		connect := b.env
		b.env = func(k string) string {
			if k == "EDITOR" {
				return c.editor
			}
			return connect(k)
		}
		code := b.run(t.Context(), []string{"config", "edit", "db"})
		said := b.out.String() + b.err.String()
		applied := slices.ContainsFunc(b.node.Asked(), func(s string) bool {
			return strings.Contains(s, "max: 5")
		})
		if code != c.code || !strings.Contains(said, c.want) || applied != c.applied {
			t.Errorf("%s: exit %d, applied %v, asked %q:\n%s", c.editor, code, applied, b.node.Asked(), said)
		}
		if _, path, ok := strings.Cut(said, "your text is in "); ok {
			path, _, _ = strings.Cut(path, ":")
			if text, err := os.ReadFile(path); err != nil || !strings.HasPrefix(string(text), "nam:") {
				t.Errorf("%s: the text is lost: %v %q", c.editor, err, text)
			}
		}
	}
}

// TestOrderInVain: an order that nothing follows from is a failure, and says how the nodes stand.
func TestOrderInVain(t *testing.T) {
	for _, action := range []string{"stop", "swap", "restart", "prim --node alpha", "second --node beta"} {
		b := newBench(t, false)
		b.node.Deaf = true
		began := b.now()
		b.now = func() time.Time { began = began.Add(time.Second); return began }
		args := strings.Fields(action)
		code := b.run(t.Context(), append([]string{args[0], "db"}, args[1:]...))
		if said := b.err.String(); code != 1 || !strings.Contains(said, "has come to nothing so far: beta is PRIM (Ready)") {
			t.Errorf("%s: exit %d:\n%s", action, code, said)
		}
	}
}

// TestAway: without a daemon every command says so, in one line.
func TestAway(t *testing.T) {
	for _, line := range []string{"status", "status db", "stop db", "log db", "volume list", "vm protect x",
		"config show db", "cluster token", "status --watch"} {
		b := newBench(t, true)
		code := b.run(t.Context(), strings.Fields(line))
		want := "--- stderr\nduet: duetd does not answer on SOCKET: is it running? systemctl status duetd\n--- exit 1\n"
		if got := b.transcript(code); got != want {
			t.Errorf("duet %s:\n%s", line, got)
		}
	}
	b := newBench(t, true)
	if code := b.run(t.Context(), []string{"version"}); code != exitOK || !strings.Contains(b.out.String(), "duet 1.0") {
		t.Errorf("version: %s", b.transcript(code))
	}
	b = newBench(t, true)
	if code := b.run(t.Context(), []string{"status", "db", "-q"}); code != exitUnknown {
		t.Errorf("status -q: exit %d", code)
	}
}

// TestComplete: names come from the node, and without it there is silence.
func TestComplete(t *testing.T) {
	for line, want := range map[string]string{
		"status ":             "web01\ndb\nold\n:4\n",
		"stop w":              "web01\n:4\n",
		"stop db ":            ":4\n",
		"stop db --node ":     "alpha\nbeta\ngamma\n:4\n",
		"volume verify d":     "db/vda\n:4\n",
		"vm protect --peer b": "beta\n:4\n",
	} {
		for _, away := range []bool{false, true} {
			b := newBench(t, away)
			if away {
				want = ":4\n"
			}
			code := b.run(t.Context(), append([]string{"__complete"}, strings.Split(line, " ")...))
			if code != exitOK || b.out.String() != want {
				t.Errorf("complete %q (away %v): %q, want %q", line, away, b.out.String(), want)
			}
		}
	}
	b := newBench(t, true)
	if code := b.run(t.Context(), []string{"completion", "bash"}); code != exitOK ||
		!strings.Contains(b.out.String(), "__complete") {
		t.Errorf("completion bash: exit %d", code)
	}
}

// TestRoleExit: the exit codes of roles, which scripts know.
func TestRoleExit(t *testing.T) {
	for role, want := range map[string]exit{"STOP": 0, "WAIT": 1, "ALONE": 2, "UP": 2, "PRIM": 3, "SECOND": 4,
		"UNKNOWN": 5, "": 5} {
		if got := roleExit(role); got != want {
			t.Errorf("%q: %d, want %d", role, got, want)
		}
	}
}

// TestHostileNames: text from elsewhere cannot send codes to the terminal.
func TestHostileNames(t *testing.T) {
	st := apitest.Sample()
	st.Modules[0].Name, st.Modules[0].Nodes[1].Why, st.Cluster = "a\x1b]0;x\a", "b\x1b[2J\r", "c\x1b"
	for _, line := range []string{"status", "status --watch", "status --json"} {
		b := newBench(t, false)
		b.node.Set(st)
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		b.run(ctx, strings.Fields(line))
		cancel()
		if strings.ContainsAny(b.out.String(), "\x1b\a\r") {
			t.Errorf("%s: %q", line, b.out.String())
		}
	}
}
