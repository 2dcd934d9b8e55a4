package main

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"duet/cluster/doctor"
	"duet/cluster/support"
	"duet/console/api"
	"duet/console/api/apitest"
)

// room is a Local without a computer: what it is told to see.
type room struct{ facts doctor.Facts }

func (r room) Look(context.Context, string) doctor.Facts { return r.facts }

func (r room) Collect(context.Context, string) support.Part {
	p := support.Part{Node: r.facts.Node}
	p.Add("host/df.txt", []byte("full\n"))
	p.Leave("status: duetd does not run here")
	return p
}

// fresh is a host before its daemon runs, where everything is in order.
func fresh() doctor.Facts {
	return doctor.Facts{Node: "alpha", Host: doctor.Host{KVM: true}, Hypervisor: doctor.Hypervisor{Name: "libvirt"},
		Ports:    []doctor.Port{{Proto: doctor.TCP, Addr: "10.0.0.1:7420"}},
		Unlooked: []string{"heartbeats over UDP: duetd does not run here"}}
}

// TestDoctor: what each command line prints of what was found.
func TestDoctor(t *testing.T) {
	stranger := fresh()
	stranger.Ports, stranger.Node = nil, "vm17"
	taken := fresh()
	taken.Ports[0].Problem = doctor.Busy
	for _, c := range []struct {
		name, line string
		away       bool
		sick       api.Doctor
		facts      doctor.Facts
	}{
		{name: "doctor", line: "doctor", sick: apitest.Findings()},
		{name: "doctor_short", line: "doctor -s", sick: apitest.Findings()},
		{name: "doctor_json", line: "doctor -s --json", sick: apitest.Findings()},
		{name: "doctor_well", line: "doctor", sick: apitest.Healthy()},
		{name: "doctor_well_short", line: "doctor --short", sick: apitest.Healthy()},
		{name: "doctor_help", line: "doctor --help"},
		{name: "doctor_away", line: "doctor", away: true, facts: fresh()},
		{name: "doctor_stranger", line: "doctor", away: true, facts: stranger},
		{name: "doctor_away_remote", line: "doctor --connect https://127.0.0.1:1", away: true},
		{name: "doctor_init", line: "cluster init --name office --node alpha --addr 10.0.0.1", facts: taken},
		{name: "doctor_init_json", line: "cluster init --name office --node alpha --addr 10.0.0.1 --json", facts: taken},
		{name: "doctor_join", line: "cluster join 10.0.0.1 --node beta --addr 10.0.0.2 --token duet1.x", facts: taken},
		{name: "doctor_protect", line: "vm protect web --no-wait", sick: apitest.Findings()},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t, c.away)
			b.node.Sick, b.local = c.sick, room{c.facts}
			golden(t, c.name, b.transcript(b.run(t.Context(), strings.Fields(c.line))))
		})
	}
}

// TestSupport: one zip, never over another file, and nothing is left of one that was cut off.
func TestSupport(t *testing.T) {
	said := map[string]string{}
	t.Run("in a folder of its own", func(t *testing.T) {
		dir, err := filepath.EvalSymlinks(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		t.Chdir(dir)
		run := func(name string, away bool, fail func(string) error, args ...string) []byte {
			b := newBench(t, away)
			b.node.Fail = fail
			said[name] = strings.ReplaceAll(b.transcript(b.run(t.Context(), append([]string{"support"}, args...))),
				dir, "DIR") // whole: who reads it may be elsewhere
			return b.node.Zip
		}
		const usual = "duet-support-20260314-150926.zip"
		want := run("support", false, nil)
		run("support_exists", false, nil, "-o", usual)
		if got, err := os.ReadFile(usual); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d bytes, want %d, %v", len(got), len(want), err)
		}
		run("support_json", false, nil, "--json", "-o", "x.zip")
		run("support_away", true, nil, "-o", "away.zip")
		run("support_fails", false, func(string) error { return errors.New("no memory") }, "-o", "none.zip")
		if _, err := os.Stat("none.zip"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("something is left of what failed: %v", err)
		}
	})
	packed := regexp.MustCompile(`(zip \(|"size": )\d+( B)?(\) holds|,\s+"holds)`) // it depends on the packer
	for name, got := range said {
		got = packed.ReplaceAllString(got, "${1}SIZE${3}")
		golden(t, name, got)
	}
}

// TestThisHost: the real one tells something of the computer on which the test runs, and no more than it can.
func TestThisHost(t *testing.T) {
	f := thisHost{"1.0"}.Look(t.Context(), t.TempDir())
	if f.Version != "1.0" || f.Daemon || len(f.Unlooked) != 2 || len(f.Ports)+len(f.Routes) != 0 {
		t.Errorf("%+v", f)
	}
	p := thisHost{"1.0"}.Collect(t.Context(), t.TempDir())
	if len(p.Files) == 0 || !strings.Contains(strings.Join(p.Left, "\n"), "duetd does not answer here") {
		t.Errorf("%d files, left out %q", len(p.Files), p.Left)
	}
}
