//go:build linux

package netns

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func twoNodes() Config {
	return Config{
		Nodes: []string{"alpha", "beta"},
		Networks: []Network{
			{Name: "hb1", Subnet: netip.MustParsePrefix("10.77.1.0/24")},
			{Name: "repl", Subnet: netip.MustParsePrefix("10.77.2.0/24")},
		},
	}
}

// lan makes a LAN for one test, or skips it where that cannot work.
func lan(t *testing.T, prefix string) *LAN { t.Helper(); return lanOf(t, prefix, twoNodes()) }

func lanOf(t *testing.T, prefix string, cfg Config) *LAN {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to make network namespaces")
	}
	for _, tool := range []string{"ip", "nft", "ping"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip("needs the command " + tool)
		}
	}
	t.Parallel() // each LAN has its own prefix, and most of the time is spent waiting for answers that must not come
	l, err := New(prefix, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

// TestCapture: what a node sends in a network is seen at the switch, and only that.
func TestCapture(t *testing.T) {
	l := lan(t, "netcapture")
	if _, err := exec.LookPath("tcpdump"); err != nil {
		t.Skip("needs the command tcpdump")
	}
	began := time.Now()
	alpha, err := l.Capture("alpha", "hb1", "icmp")
	if err != nil {
		t.Fatal(err)
	}
	beta, err := l.Capture("beta", "hb1", "icmp and src host "+l.Addr("alpha", "hb1").String())
	if err != nil {
		t.Fatal(err)
	}
	if !l.ping("alpha", "beta", "hb1") {
		t.Error("no way from alpha to beta")
	}
	for _, node := range []struct {
		stop func() ([]Frame, error)
		want bool
	}{{alpha, true}, {beta, false}} {
		seen, err := node.stop()
		if err != nil || (len(seen) > 0) != node.want {
			t.Errorf("%+v, %v", seen, err)
		}
		for _, f := range seen {
			if f.At.Before(began.Add(-time.Millisecond)) || f.At.After(time.Now()) || !strings.Contains(f.Text, "echo request") {
				t.Errorf("%+v", f)
			}
		}
	}
	_, err = l.Capture("alpha", "hb1", "no such filter")
	if err == nil || !strings.Contains(err.Error(), "syntax error") {
		t.Errorf("a filter that is none: %v", err)
	}
}

// TestGuests: a network of VMs is a bridge in each node, over which their frames pass, without an address of the node.
func TestGuests(t *testing.T) {
	cfg := twoNodes()
	cfg.Networks = append(cfg.Networks, Network{Name: "vms", Subnet: netip.MustParsePrefix("10.77.3.0/24"), Guests: true})
	l := lanOf(t, "netguests", cfg)
	for i, node := range cfg.Nodes {
		guest := fmt.Sprintf("10.77.3.%d", 50+i)
		err := l.Do(node, func() error { // an address of its own on the bridge stands for a guest
			_, err := output("ip", "addr", "add", guest+"/24", "dev", "vms")
			return err
		})
		if err == nil {
			err = l.Do(Switch, func() error {
				_, err := output("ping", "-c1", "-W5", guest)
				return err
			})
		}
		if err != nil {
			t.Error(err)
		}
	}
	if hosts := l.Hosts(); strings.Contains(hosts, "vms") {
		t.Errorf("the nodes have names in the network of the guests:\n%s", hosts)
	}
}

func (l *LAN) ping(from, to, network string) bool {
	return l.Do(from, func() error {
		_, err := output("ping", "-q", "-c1", "-W1", l.Addr(to, network).String())
		return err
	}) == nil
}

func TestPing(t *testing.T) {
	l := lan(t, "dtbnsp")
	type path struct{ from, to, network string }
	ab1, ba1, ab2, ag1 := path{"alpha", "beta", "hb1"}, path{"beta", "alpha", "hb1"}, path{"alpha", "beta", "repl"},
		path{"alpha", Gateway, "hb1"}
	all := []path{ab1, ba1, ab2, ag1}
	tests := []struct {
		name string
		cuts []Cut
		dead []path
	}{
		{"whole", nil, nil},
		{"one network", []Cut{{Network: "hb1"}}, []path{ab1, ba1, ag1}},
		{"one way, so no answer comes", []Cut{{Network: "hb1", From: "beta", To: "alpha"}}, []path{ab1, ba1}},
		{"pair in all networks", Between("alpha", "beta", ""), []path{ab1, ba1, ab2}},
		{"node", Around("alpha", ""), all},
		{"only the gateway", []Cut{{From: "alpha", To: Gateway}}, []path{ag1}},
		{"from the gateway", []Cut{{From: Gateway}}, []path{ag1}},
		{"a TCP port is no ping", []Cut{{TCPPort: 80}}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if err := l.Cut(tt.cuts...); err != nil {
				t.Fatal(err)
			}
			dead := map[path]bool{}
			for _, p := range tt.dead {
				dead[p] = true
			}
			answers := make([]chan bool, len(all))
			for i, p := range all {
				answers[i] = make(chan bool, 1)
				go func() { answers[i] <- l.ping(p.from, p.to, p.network) }()
			}
			for i, p := range all {
				if got := <-answers[i]; got == dead[p] {
					t.Errorf("%v answers: %v", p, got)
				}
			}
			if err := l.Restore(tt.cuts...); err != nil {
				t.Fatal(err)
			}
		})
	}
	t.Run("restored", func(t *testing.T) {
		if err := errors.Join(l.CutAll("beta"), l.RestoreAll()); err != nil {
			t.Fatal(err)
		}
		for _, p := range all {
			if !l.ping(p.from, p.to, p.network) {
				t.Errorf("%v does not answer", p)
			}
		}
	})
}

func TestCable(t *testing.T) {
	l := lan(t, "dtbnsl")
	carrier := func(want bool) {
		t.Helper()
		wait(t, fmt.Sprintf("carrier %v", want), func() bool {
			var got bool
			err := l.Do("alpha", func() error {
				link, err := net.InterfaceByName("repl")
				got = err == nil && link.Flags&net.FlagRunning != 0
				return err
			})
			return err == nil && got == want
		})
	}
	carrier(true)
	if err := l.SetLink("alpha", "repl", false); err != nil {
		t.Fatal(err)
	}
	carrier(false)
	if err := l.SetLink("alpha", "repl", true); err != nil {
		t.Fatal(err)
	}
	carrier(true)
	wait(t, "ping", func() bool { return l.ping("alpha", "beta", "repl") })
}

// wait looks at a condition of the kernel, which tells nobody when it changes, until it holds.
func wait(t *testing.T, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	for !ok() {
		select {
		case <-ctx.Done():
			t.Fatalf("waited in vain for %s", what)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func TestCutOfOneTCPPort(t *testing.T) {
	l := lan(t, "dtbnst")
	listen := func(port int) net.Listener {
		var ln net.Listener
		err := l.Do("beta", func() (err error) {
			ln, err = net.Listen("tcp4", fmt.Sprintf("%s:%d", l.Addr("beta", "repl"), port))
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ln.Close() })
		return ln
	}
	dial := func(ln net.Listener) (c net.Conn, err error) {
		err = l.Do("alpha", func() (err error) {
			d := net.Dialer{Timeout: 500 * time.Millisecond}
			c, err = d.DialContext(t.Context(), "tcp4", ln.Addr().String())
			return err
		})
		return c, err
	}
	one, two := listen(7001), listen(7002)
	open, err := dial(one)
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	far, err := one.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	if err := l.Cut(Cut{Network: "repl", TCPPort: 7001}); err != nil {
		t.Fatal(err)
	}
	if c, err := dial(one); err == nil {
		c.Close()
		t.Error("the cut port still answers")
	}
	if c, err := dial(two); err != nil {
		t.Errorf("another port is cut too: %v", err)
	} else {
		c.Close()
	}
	far.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
	fmt.Fprint(open, "x")
	if _, err := far.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("an open connection still carries data: %v", err)
	}
	if err := l.RestoreAll(); err != nil {
		t.Fatal(err)
	}
	far.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.ReadFull(far, make([]byte, 1)); err != nil {
		t.Errorf("the connection did not heal: %v", err)
	}
}

func TestReset(t *testing.T) {
	l := lan(t, "dtbnsr")
	address := func(word string) error {
		return l.Do("alpha", func() error {
			_, err := output("ip", "address", word, "10.77.1.99/24", "dev", "hb1")
			return err
		})
	}
	if err := errors.Join(address("add"), l.Cut(Between("alpha", "beta", "repl")...), l.Reset("alpha")); err != nil {
		t.Fatal(err)
	}
	if err := address("del"); err == nil {
		t.Error("an address outlives the reset")
	}
	if !l.ping("alpha", "beta", "hb1") || !l.ping("alpha", Gateway, "hb1") {
		t.Error("alpha is not in the network again")
	}
	if l.ping("alpha", "beta", "repl") {
		t.Error("the reset healed a cut")
	}
	if l.Reset("gamma") == nil || l.Reset(Switch) == nil {
		t.Error("reset what is no node")
	}
}

// TestResetAgain: a Reset makes whole what one before has left half way.
func TestResetAgain(t *testing.T) {
	l := lan(t, "dtbnsa")
	_, err := output("ip", "-n", "dtbnsa-"+Switch, "link", "del", portName("alpha", "hb1"))
	if err = errors.Join(err, l.Reset("alpha")); err != nil {
		t.Fatalf("one link was gone: %v", err)
	}
	for _, network := range []string{"hb1", "repl"} {
		_, e := output("ip", "-n", "dtbnsa-"+Switch, "link", "del", portName("alpha", network))
		err = errors.Join(err, e)
	}
	if err = errors.Join(err, remove(l.Path("alpha")), l.Reset("alpha")); err != nil {
		t.Fatalf("all of it was gone: %v", err)
	}
	if !l.ping("alpha", "beta", "hb1") || !l.ping("alpha", "beta", "repl") {
		t.Error("alpha is not in the network again")
	}
}

func TestNewCleansUp(t *testing.T) {
	l := lan(t, "dtbnsc")
	if _, err := New("dtbnsc", twoNodes()); !errors.Is(err, ErrInUse) {
		t.Errorf("second New of a live prefix: %v", err)
	}
	// A crash is a LAN whose lock is gone and whose namespaces and processes are not.
	left := exec.Command("sleep", "60")
	if err := l.Do("alpha", left.Start); err != nil {
		t.Fatal(err)
	}
	if err := l.lock.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := New("dtbnsc", twoNodes())
	if err != nil {
		t.Fatal(err)
	}
	if err := left.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("the process left behind ended with: %v", err)
	}
	if !again.ping("alpha", "beta", "hb1") {
		t.Error("no ping in the second LAN")
	}
	if err := again.Close(); err != nil {
		t.Error(err)
	}
	if paths, _ := filepath.Glob(folder + "/dtbnsc-*"); len(paths) > 0 {
		t.Errorf("left behind: %v", paths)
	}
	if l.lock, err = os.Open(os.DevNull); err != nil { // for the Close of the cleanup
		t.Fatal(err)
	}
}

func TestDoOfPanickingFunction(t *testing.T) {
	l := lan(t, "dtbnsd")
	if err := l.Do("alpha", func() error { runtime.Goexit(); return nil }); !errors.Is(err, errUnfinished) {
		t.Errorf("got %v", err)
	}
	if err := l.Do("gamma", func() error { return nil }); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("unknown node: %v", err)
	}
}

func TestRules(t *testing.T) {
	got := twoNodes().rules([]Cut{{Network: "repl", From: "alpha", TCPPort: 7}, {Network: "hb1", To: "beta"}})
	want := `table bridge duet {}
delete table bridge duet
table bridge duet {
	chain forward {
		type filter hook forward priority 0; policy accept;
		iifname "alpha-hb1" oifname "beta-hb1" drop
		iifname "alpha-repl" oifname "beta-repl" tcp dport 7 drop
		iifname "alpha-repl" oifname "beta-repl" tcp sport 7 drop
	}
	chain input {
		type filter hook input priority 0; policy accept;
		iifname "alpha-repl" tcp dport 7 drop
		iifname "alpha-repl" tcp sport 7 drop
	}
	chain output {
		type filter hook output priority 0; policy accept;
		oifname "beta-hb1" drop
	}
}
`
	if got != want {
		t.Errorf("got\n%s", got)
	}
}

func TestHosts(t *testing.T) {
	got := (&LAN{cfg: twoNodes()}).Hosts()
	want := "10.77.1.11 alpha alpha-hb1\n10.77.1.12 beta beta-hb1\n10.77.2.11 alpha-repl\n10.77.2.12 beta-repl\n"
	if got != want {
		t.Errorf("got\n%s", got)
	}
}

func TestRefused(t *testing.T) {
	good := twoNodes()
	one := func(name, subnet string) []Network {
		return []Network{{Name: name, Subnet: netip.MustParsePrefix(subnet)}}
	}
	for name, spoil := range map[string]func(*Config){
		"no node":          func(c *Config) { c.Nodes = nil },
		"node twice":       func(c *Config) { c.Nodes = []string{"a", "a"} },
		"name of another":  func(c *Config) { c.Nodes = []string{Gateway} },
		"odd name":         func(c *Config) { c.Nodes = []string{"a;drop"} },
		"guests first":     func(c *Config) { c.Networks[0].Guests = true },
		"network twice":    func(c *Config) { c.Networks = append(c.Networks, c.Networks[0]) },
		"loopback":         func(c *Config) { c.Networks = one("lo", "10.77.1.0/24") },
		"long link":        func(c *Config) { c.Networks = one("replication", "10.77.1.0/24") },
		"small subnet":     func(c *Config) { c.Networks = one("a", "10.77.1.0/29") },
		"IPv6 subnet":      func(c *Config) { c.Networks = one("a", "fd00::/64") },
		"no subnet at all": func(c *Config) { c.Networks = []Network{{Name: "a"}} },
	} {
		cfg := twoNodes()
		spoil(&cfg)
		if err := cfg.validate("dtb"); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if good.validate("dtb") != nil || good.validate("../x") == nil {
		t.Error("prefix is judged wrongly")
	}
	for _, cut := range []Cut{{From: "gamma"}, {Network: "x"}, {TCPPort: -1}, {From: Gateway, To: Gateway}} {
		if good.known(cut) == nil {
			t.Errorf("%+v: accepted", cut)
		}
	}
}
