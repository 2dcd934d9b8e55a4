package scenario

import (
	"archive/zip"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"duet/console/api"
	"duet/testbed/testcluster"
)

// doctor is what `duet doctor` finds, asked on a host.
func doctor(ctx context.Context, t *testing.T, h *testcluster.Host) api.Doctor {
	t.Helper()
	out, _ := h.Duet(ctx, "doctor", "--json") // it fails where it finds a problem
	var d api.Doctor
	if err := json.Unmarshal([]byte(out), &d); err != nil {
		t.Fatalf("%v: %q", err, out)
	}
	return d
}

// finds waits until the doctor says something of a node.
func finds(ctx context.Context, t *testing.T, h *testcluster.Host, node, level, fact string) {
	t.Helper()
	must(t, testcluster.Until(ctx, "the doctor says: "+fact, func() error {
		var all strings.Builder
		for _, f := range doctor(ctx, t, h).Findings {
			if f.Node == node && f.Level == level && strings.Contains(f.Fact, fact) {
				return nil
			}
			fmt.Fprintf(&all, "\n%s %s: %s", f.Node, f.Level, f.Fact)
		}
		return errorf("found%s", all.String())
	}))
}

// TestDoctorAndSupport: with the real libvirt; a port that a firewall shuts is found, and a
// password in a definition does not get into what is sent to somebody.
func TestDoctorAndSupport(t *testing.T) {
	l := start(t, 62)
	ctx := bounded(t, 2*time.Minute)
	a, b := l.Hosts[testcluster.Alpha], l.Hosts[testcluster.Beta]
	began := time.Now()
	d := doctor(ctx, t, a)
	t.Logf("the doctor took %v", time.Since(began).Round(time.Millisecond))
	for _, f := range d.Findings {
		t.Logf("%-6s %-8s %s  [%s]", f.Node, f.Level, f.Fact, f.Remedy)
	}
	finds(ctx, t, a, "", "ok", "duetd ")
	for _, node := range []string{testcluster.Alpha, testcluster.Beta} {
		finds(ctx, t, a, node, "ok", "libvirt ")
		finds(ctx, t, a, node, "ok", "guests run as ")
	}
	finds(ctx, t, a, testcluster.Alpha, "ok",
		fmt.Sprintf("reaches beta on %s (%s), %s (%s)", testcluster.Front, l.LAN.Addr(testcluster.Beta, testcluster.Front),
			testcluster.Back,
			l.LAN.Addr(testcluster.Beta, testcluster.Back)))
	finds(ctx, t, a, testcluster.Beta, "ok", "reaches alpha on "+testcluster.Front)

	back := l.LAN.Addr(testcluster.Beta, testcluster.Back).String()
	rules := filepath.Join(t.TempDir(), "rules")
	must(t, os.WriteFile(rules,
		[]byte("table inet wall { chain input { type filter hook input priority 0; ip daddr "+back+" udp dport 7421 drop; "+
			"}; }\n"), 0o644))
	_, err := b.Node.Run(ctx, "nft", "-f", rules)
	must(t, err)
	finds(ctx, t, a, testcluster.Alpha, "problem", "does not reach UDP 7421 of beta on "+testcluster.Back+" ("+back+")")
	if _, err := a.Duet(ctx, "doctor"); err == nil {
		t.Error("a problem, and the exit code is 0")
	}
	_, err = b.Node.Run(ctx, "nft", "delete", "table", "inet", "wall")
	must(t, err)
	finds(ctx, t, a, testcluster.Alpha, "ok", "reaches beta on "+testcluster.Front)

	must(t, a.DefineTiny(ctx, "tiny", 16<<20))
	const password = "hunter22"
	text, err := a.Libvirt.Virsh(ctx, "dumpxml", "tiny")
	must(t, err)
	secret := filepath.Join(t.TempDir(), "tiny.xml")
	must(t, os.WriteFile(secret,
		[]byte(strings.Replace(text, "</devices>", "<graphics type='vnc' port='-1' passwd='"+password+"'/></devices>",
			1)), 0o600))
	_, err = a.Libvirt.Virsh(ctx, "define", secret)
	must(t, err)
	duet(ctx, t, a, "vm", "protect", "tiny")
	file := filepath.Join(t.TempDir(), "help.zip")
	began = time.Now()
	t.Log(duet(ctx, t, a, "support", "-o", file), time.Since(began).Round(time.Millisecond))
	z, err := zip.OpenReader(file)
	must(t, err)
	defer z.Close()
	there := map[string]bool{}
	for _, f := range z.File {
		text, err := fs.ReadFile(z, f.Name)
		must(t, err)
		there[f.Name] = true
		if strings.Contains(string(text), password) {
			t.Errorf("the password is in %s", f.Name)
		}
		if strings.HasPrefix(f.Name, "alpha/vms/") && !strings.Contains(string(text), "passwd") &&
			!strings.Contains(string(text), "type='vnc'") {
			t.Errorf("the VM is not there as it was:\n%s", text)
		}
	}
	for _, name := range []string{"alpha/vms/tiny.xml", "beta/vms/tiny.xml", "beta/facts.json", "alpha/metrics.txt",
		"beta/host/addresses.txt"} {
		if !there[name] {
			t.Errorf("%s is not in it", name)
		}
	}
}
