package support

import (
	"archive/zip"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"duet/cluster"
	"duet/cluster/clustertest"
	"duet/cluster/fence"
	"duet/cluster/membership"
	"duet/cluster/pki"
)

// unpack returns what is in the zip that the parts make.
func unpack(t *testing.T, parts ...Part) map[string]string {
	t.Helper()
	var b bytes.Buffer
	if err := Write(&b, time.Unix(1e9, 0), parts); err != nil {
		t.Fatal(err)
	}
	z, err := zip.NewReader(bytes.NewReader(b.Bytes()), int64(b.Len()))
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, f := range z.File {
		r, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if out[f.Name] != "" {
			t.Errorf("%s is there twice", f.Name)
		}
		out[f.Name] = string(text)
	}
	return out
}

// member makes the directory of a node with every kind of secret, and returns these.
func member(t *testing.T) (dir string, planted map[string]string) {
	t.Helper()
	dir = t.TempDir()
	_, err := pki.Init(filepath.Join(dir, pki.Folder), "office", "alpha")
	must(t, err)
	gossip := bytes.Repeat([]byte{0xfb, 0xef, 0xbe}, 11)[:32]
	planted = map[string]string{
		"gossip key": base64.StdEncoding.EncodeToString(gossip), "fence password": `pazz"sszz\wzz<rdzz`,
		"fence snmp":    "communal",
		"console token": "0123456789abcdef0123456789abcdef", "registration": "REGISTRATION",
	}
	for _, name := range []string{"ca.key", "node.key"} {
		key, err := os.ReadFile(filepath.Join(dir, pki.Folder, name))
		must(t, err)
		planted[name] = strings.Split(string(key), "\n")[1]
	}
	raw, err := fence.Encode(fence.Levels{{{Name: "bmc", Agent: "fence_ipmilan", Options: fence.Options{
		"ip": "10.0.9.2", "password": planted["fence password"], "community": planted["fence snmp"]}}}})
	must(t, err)
	must(t, membership.Save(dir, cluster.Config{Name: "office", Self: "alpha", Port: 7420, GossipKeys: [][]byte{gossip},
		Members: []cluster.Member{{Node: "alpha"}, {Node: "beta"}}, Fence: map[cluster.NodeID]json.RawMessage{"beta": raw,
			"gamma": []byte(`{"odd":"communal"}`)},
		Voters: cluster.Voters{Active: []cluster.Witness{{Addr: "10.0.0.9:7425", Key: "fingerprint",
			ID: planted["registration"]}}}}))
	must(t, os.WriteFile(filepath.Join(dir, "console.token"), []byte(planted["console token"]+"\n"), 0o600))
	must(t, os.Mkdir(filepath.Join(dir, "log"), 0o700))
	return dir, planted
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestSecrets: whatever got into a log, no secret gets into the zip; the rest does.
func TestSecrets(t *testing.T) {
	dir, planted := member(t)
	var log strings.Builder
	daemon := slog.New(slog.NewJSONHandler(&log, nil))
	for what, s := range planted {
		html, err := json.Marshal(s)
		must(t, err)
		fmt.Fprintf(&log, "somebody logged the %s: %s, and as JSON %s\n", what, s, html)
		daemon.Info("somebody logged the "+what, "it", s)
	}
	key, err := os.ReadFile(filepath.Join(dir, pki.Folder, "node.key"))
	must(t, err)
	log.WriteString("join with duet1.AbC-1_2.xyz and duetw1.QqQ\n" + string(key))
	must(t, os.WriteFile(filepath.Join(dir, "log", "web01.jsonl"), []byte(log.String()), 0o600))
	p, secrets := Collect(t.Context(), dir)
	p.Leave("the vault: its code is %s", planted["console token"])
	p.Seal(secrets)
	got := unpack(t, p)
	for what, s := range planted {
		for name, text := range got {
			for _, part := range strings.FieldsFunc(s,
				func(r rune) bool { return strings.ContainsRune(`"\<`, r) }) { // however it is quoted
				if len(part) > 1 && strings.Contains(text, part) {
					t.Errorf("the %s is in %s:\n%s", what, name, text)
				}
			}
		}
	}
	journal := got["alpha/journal/web01.jsonl"]
	for _, s := range []string{"AbC-1_2", "QqQ", "PRIVATE KEY"} {
		if strings.Contains(journal, s) {
			t.Errorf("%q is in the journal:\n%s", s, journal)
		}
	}
	if !strings.Contains(journal, "somebody logged the console token: ***") {
		t.Errorf("the journal:\n%s", journal)
	}
	for _, s := range []string{"office", "10.0.9.2", "fence_ipmilan", "10.0.0.9:7425", "fingerprint"} {
		if !strings.Contains(got["alpha/cluster.json"], s) {
			t.Errorf("%q is missing in the configuration:\n%s", s, got["alpha/cluster.json"])
		}
	}
	if !strings.Contains(got[LeftOut], "alpha: the vault: its code is ***") {
		t.Errorf("left out:\n%s", got[LeftOut])
	}
}

// TestStranger: on a host that is no member there is still something, and what is missing is said.
func TestStranger(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("what a host tells is looked for on Linux only")
	}
	t.Setenv("PATH", t.TempDir())
	p, secrets := Collect(t.Context(), filepath.Join(t.TempDir(), "none"))
	p.Seal(secrets)
	got := unpack(t, p)
	if !strings.Contains(got["this-host/host/meminfo.txt"], "MemTotal") ||
		!strings.Contains(got["this-host/host/os-release.txt"], "=") {
		t.Errorf("%v", got)
	}
	for _, want := range []string{"configuration of the cluster: ", "duetd.log: there is no program journalctl here",
		"host/df.txt: there is no program df"} {
		if !strings.Contains(got[LeftOut], want) {
			t.Errorf("%q is not said:\n%s", want, got[LeftOut])
		}
	}
}

// TestPrograms: what they print is kept, and why it is not is said.
func TestPrograms(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the programs are scripts of sh")
	}
	bin := t.TempDir()
	for name, script := range map[string]string{
		"journalctl": "echo '-- No entries --'", "ip": "echo \"$@\"; echo broken >&2; exit 3", "df": "exit 1",
	} {
		must(t, clustertest.WriteProgram(filepath.Join(bin, name), "#!/bin/sh\n"+script+"\n"))
	}
	t.Setenv("PATH", bin+":/bin")
	p, secrets := Collect(t.Context(), t.TempDir())
	p.Seal(secrets)
	got := unpack(t, p)
	if got["this-host/host/addresses.txt"] != "-br addr\n" || got["this-host/host/df.txt"] != "" ||
		got["this-host/duetd.log"] != "" {
		t.Errorf("%v", got)
	}
	for _, want := range []string{"the rest of host/addresses.txt: `ip -br addr`: exit status 3",
		"host/df.txt: `df -hT`: exit status 1",
		"duetd.log: `journalctl -u duetd` has nothing on this host: if duetd does not run as that unit, send the file that",
		"libvirtd.log: `journalctl -u libvirtd` has nothing on this host: if libvirt logs to a file"} {
		if !strings.Contains(got[LeftOut], want) {
			t.Errorf("%q is not said:\n%s", want, got[LeftOut])
		}
	}
}

// TestBounds: long logs lose their beginning, and a part never outgrows one answer.
func TestBounds(t *testing.T) {
	line := strings.Repeat("x", 99) + "\n"
	p := Part{Node: "alpha"}
	p.Add("a.log", []byte("first\n"+strings.Repeat(line, maxFile/100+10)+"last\n"))
	p.Add("b.log", []byte(strings.Repeat(line, maxFile/100-10)))
	p.Add("c.log", []byte(strings.Repeat(line, 100)))
	p.Add("d.log", []byte(strings.Repeat(line, maxFile/100-10)))
	p.Add("e.log", []byte("small\n"))
	p.Seal(nil)
	got, size := unpack(t, p), 0
	for _, text := range got {
		size += len(text)
	}
	if a := got["alpha/a.log"]; len(a) > maxFile || !strings.HasPrefix(a, "x") || !strings.HasSuffix(a, "last\n") ||
		len(a)%100 != 5 {
		t.Errorf("a.log has %d bytes, from %.10q", len(a), a)
	}
	if size > maxPart+1000 || got["alpha/d.log"] != "" || got["alpha/e.log"] == "" {
		t.Errorf("%d bytes in all, d.log %d, e.log %q", size, len(got["alpha/d.log"]), got["alpha/e.log"])
	}
	if !strings.Contains(got[LeftOut], "a.log: all but its last 4 MiB") ||
		!strings.Contains(got[LeftOut], "d.log: there is too much already") {
		t.Errorf("%s", got[LeftOut])
	}
	var end tail
	for range 5 * maxFile / len(line) {
		_, _ = end.Write([]byte(line))
	}
	if len(end.b) < maxFile || len(end.b) > 2*maxFile+len(line) {
		t.Errorf("kept %d bytes of what was printed", len(end.b))
	}
}

// TestNames: no name leads out of the folder of its node.
func TestNames(t *testing.T) {
	for name, want := range map[string]string{
		"vms/my vm.xml": "beta/vms/my_vm.xml", "../../etc/passwd": "beta/_/_/etc/passwd", "/abs": "beta/_/abs",
		`a\..\b`: "beta/a_.._b", "..": "beta/_",
	} {
		if got := unpack(t, Part{Node: "beta", Files: []File{{name, []byte("x")}}}); got[want] != "x" {
			t.Errorf("%q: %v", name, got)
		}
	}
}
