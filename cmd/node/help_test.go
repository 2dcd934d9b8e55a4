package node

import (
	"archive/zip"
	"bytes"
	"encoding/base64"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"duet/cluster"
	"duet/cluster/support"
	"duet/console/api"
	"duet/vmmanager"
)

// found looks for a finding that is said of a node.
func found(d api.Doctor, node, level, about, fact string) bool {
	for _, f := range d.Findings {
		if f.Node == node && f.Level == level && f.About == about && strings.Contains(f.Fact, fact) {
			return true
		}
	}
	return false
}

// TestDoctor: both nodes are looked at, in both directions, and what is broken is found.
func TestDoctor(t *testing.T) {
	p := newPair(t)
	p.protected("web01")
	look := func(node, level, about, fact string) {
		t.Helper()
		until(t, "the doctor says "+fact, func() error {
			d, err := p.a.node.Doctor(t.Context())
			if err == nil && !found(d, node, level, about, fact) {
				err = errorsOf(d)
			}
			return err
		})
	}
	look("alpha", "ok", "network", "reaches beta on hb1 ("+p.b.ip+")")
	look("beta", "ok", "network", "reaches alpha on hb1 ("+p.a.ip+")")
	look("beta", "ok", "libvirt", "fake 1.0 with fake 1.0")
	look("beta", "ok", "memory", "all VMs that may run here (1) take 64 MiB")
	look("beta", "ok", "clock", "its clock and alpha's differ by less than")
	look("", "note", "arbitration", "two writers of web01")
	look("", "ok", "version", "on alpha, beta")
	look("alpha", "ok", "space", "for metadata")

	hv := p.b.hv.(hypervisor).Hypervisor
	hv.SetAway(true)
	look("beta", "problem", "libvirt", "no VM can run here")
	hv.SetAway(false)
	look("beta", "ok", "libvirt", "fake 1.0")

	p.stop(p.b)
	look("beta", "problem", "node", "its computer is up, duetd does not run there")
	// A port that somebody else answers on is no answer of beta.
	ln, err := net.Listen("tcp", net.JoinHostPort(p.b.ip, strconv.Itoa(p.port)))
	must(t, err)
	look("alpha", "problem", "network", "does not reach TCP "+strconv.Itoa(p.port+1)+" of beta on hb1")
	look("beta", "problem", "node", "takes connections and says nothing on them: duetd hangs there")
	must(t, ln.Close())
	p.start(p.b)
	look("beta", "ok", "network", "reaches alpha on hb1 ("+p.a.ip+")")

	must(t, p.b.node.Change(func(c *cluster.Config) bool { c.Remove("alpha", time.Now()); return true }))
	look("alpha", "problem", "member", "beta does not take alpha for a member")
	d, err := p.a.node.Doctor(t.Context())
	must(t, err)
	if found(d, "alpha", "problem", "network", "") {
		t.Errorf("the network of a node that was removed is blamed: %v", errorsOf(d))
	}
}

// errorsOf shows what was found instead.
func errorsOf(d api.Doctor) error {
	var s strings.Builder
	for _, f := range d.Findings {
		s.WriteString("\n" + f.Node + " " + f.Level + " " + f.About + ": " + f.Fact)
	}
	return errors.New(s.String())
}

// TestSupport: everything of both nodes, nothing secret, and who does not answer is named.
func TestSupport(t *testing.T) {
	p := newPair(t)
	p.protected("web01")
	must(t, p.a.hv.Define(t.Context(), vmmanager.Definition{Name: "private", Text: []byte("vm private")}))
	gather := func() map[string]string {
		t.Helper()
		write, err := p.a.node.Support(t.Context())
		must(t, err)
		var b bytes.Buffer
		must(t, write(&b))
		z, err := zip.NewReader(bytes.NewReader(b.Bytes()), int64(b.Len()))
		must(t, err)
		out := map[string]string{}
		for _, f := range z.File {
			text, err := fs.ReadFile(z, f.Name)
			must(t, err)
			out[f.Name] = string(text)
		}
		return out
	}
	got := gather()
	for name, want := range map[string]string{
		"alpha/doctor.json": `"findings"`, "alpha/cluster.json": `"self": "alpha"`, "beta/cluster.json": `"self": "beta"`,
		"beta/facts.json": `"daemon": true`, "beta/status.json": `"cluster": "test"`,
		"alpha/metrics.txt":       `duet_module_holder{module="web01"}`,
		"beta/modules/web01.yaml": "kind: vm", "alpha/vms/web01.xml": "vm web01", "beta/vms/web01.xml": "web01",
		"alpha/journal/web01.jsonl": `"node":"alpha"`, "beta/journal/web01.jsonl": `"node":"beta"`,
		"beta/host/meminfo.txt": "MemTotal",
	} {
		if !strings.Contains(got[name], want) {
			t.Errorf("%s lacks %q: %.300q", name, want, got[name])
		}
	}
	if text := got["alpha/vms/private.xml"]; text != "" {
		t.Errorf("a VM that is not protected is in it: %s", text)
	}
	for _, m := range []*member{p.a, p.b} {
		secrets := map[string]string{"console token": readToken(t, m),
			"gossip key": base64.StdEncoding.EncodeToString(m.node.cluster().GossipKeys[0])}
		keys, err := filepath.Glob(filepath.Join(m.dir, "pki", "*.key"))
		if err != nil || len(keys) == 0 {
			t.Fatalf("no keys, %v", err)
		}
		for _, k := range keys {
			b, err := os.ReadFile(k)
			must(t, err)
			secrets[k] = strings.Split(string(b), "\n")[1]
		}
		for what, s := range secrets {
			for name, text := range got {
				if len(s) < 20 || strings.Contains(text, s) {
					t.Errorf("%s of %s is in %s", what, m.name, name)
				}
			}
		}
	}
	p.stop(p.b)
	got = gather()
	if !strings.Contains(got[support.LeftOut], "beta: everything: ") || got["alpha/status.json"] == "" {
		t.Errorf("left out: %s", got[support.LeftOut])
	}
}
