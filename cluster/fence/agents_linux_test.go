package fence

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// realAgents returns a Fencer for the agents of this system.
func realAgents(t *testing.T) (*Fencer, *journal) {
	t.Helper()
	if _, err := os.Stat("/usr/sbin/fence_dummy"); err != nil {
		t.Skip("fence_dummy is not installed: apt-get install --no-install-recommends fence-agents")
	}
	log := &journal{}
	return New(Config{Logger: slog.New(slog.NewTextHandler(log, nil))}), log
}

// dummy is fence_dummy with its state in a file, whose name tests how options are passed.
func dummy(t *testing.T, state string) (Device, string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), ` state "1" = x`)
	if err := os.WriteFile(file, []byte(state), 0o644); err != nil {
		t.Fatal(err)
	}
	return Device{Name: "dummy", Agent: "fence_dummy", Options: Options{"type": "file", "status_file": file}}, file
}

func TestDummy(t *testing.T) {
	f, _ := realAgents(t)
	d, file := dummy(t, "on")
	if on, err := f.Check(t.Context(), d); err != nil || !on {
		t.Fatalf("on %t, %v", on, err)
	}
	if err := f.Off(t.Context(), Levels{{d}}); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(file); err != nil || string(text) != "off" {
		t.Errorf("state %q, %v", text, err)
	}
	if on, err := f.Check(t.Context(), d); err != nil || on {
		t.Errorf("on %t, %v", on, err)
	}
	if err := f.Off(t.Context(), Levels{{d}}); err != nil {
		t.Errorf("off again: %v", err)
	}
}

func TestDummyFails(t *testing.T) {
	f, log := realAgents(t)
	d := Device{Name: "dummy", Agent: "fence_dummy",
		Options: Options{"type": "fail", "power_timeout": "1", "password": "hunter2"}}
	err := f.Off(t.Context(), Levels{{d}})
	if !errors.Is(err, ErrNotOff) || !strings.Contains(err.Error(), "exit code 1: Failed: ") {
		t.Errorf("type fail: %v", err)
	}
	d, _ = dummy(t, "melted")
	d.Options["password"] = "hunter2"
	if on, e := f.Check(t.Context(), d); e == nil || !strings.Contains(e.Error(), "Unable to obtain correct plug status") {
		t.Errorf("unknown state: on %t, %v", on, e)
	}
	if strings.Contains(err.Error()+log.String(), "hunter2") {
		t.Errorf("the password is shown: %v %s", err, log)
	}
}

// TestDummySlow: a real agent that takes too long is ended in its time.
func TestDummySlow(t *testing.T) {
	f, _ := realAgents(t)
	d, file := dummy(t, "on")
	d.Options["delay"], d.Timeout = "1000", time.Second
	if err := f.Off(t.Context(), Levels{{d}}); !errors.Is(err, ErrNotOff) ||
		!strings.Contains(err.Error(), "no answer in 1s") {
		t.Errorf("got %v", err)
	}
	if text, err := os.ReadFile(file); err != nil || string(text) != "on" {
		t.Errorf("state %q, %v", text, err)
	}
}

// TestRealMetadata: the examples of the package's page fit the agents, and those that prove nothing are refused.
func TestRealMetadata(t *testing.T) {
	f, _ := realAgents(t)
	key := filepath.Join(t.TempDir(), "key")
	for name, c := range map[string]struct {
		agent   string
		options Options
		want    string // part of the error; empty is none
	}{
		"ipmilan": {"fence_ipmilan", Options{"ip": "10.0.9.1", "username": "duet", "password": "x", "lanplus": "1",
			"privlvl": "operator"}, ""},
		"redfish": {"fence_redfish", Options{"ip": "10.0.9.1", "username": "duet", "password": "x",
			"systems_uri": "/redfish/v1/Systems/1", "ssl_insecure": "1"}, ""},
		"virsh": {"fence_virsh", Options{"ip": "10.0.9.1", "username": "root", "identity_file": key, "ssh": "1",
			"plug": "alpha"}, ""},
		"pdu":        {"fence_apc_snmp", Options{"ip": "10.0.9.11", "community": "x", "plug": "4"}, ""},
		"dummy":      {"fence_dummy", Options{"type": "file"}, ""},
		"misspelled": {"fence_ipmilan", Options{"ip": "10.0.9.1", "username": "duet", "pasword": "x"}, "does not know it"},
		"no plug":    {"fence_virsh", Options{"ip": "10.0.9.1", "username": "root"}, `option "plug" is missing`},
		"kdump":      {"fence_kdump", Options{"nodename_": "x"}, "cannot switch off and ask"},
		"ping":       {"fence_heuristics_ping", Options{"ping_targets": "x"}, "cannot switch off and ask"},
		"storage":    {"fence_scsi", Options{"plug": "x"}, "leaves it running"},
	} {
		t.Run(name, func(t *testing.T) {
			err := f.Inspect(t.Context(), Device{Name: "x", Agent: c.agent, Options: c.options})
			if (err == nil) != (c.want == "") || (err != nil && !strings.Contains(err.Error(), c.want)) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}
