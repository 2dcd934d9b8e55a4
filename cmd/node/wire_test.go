package node

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"duet/appmodules"
	"duet/appmodules/engine"
	"duet/appmodules/mirror"
	"duet/appmodules/orders"
	"duet/appmodules/protect"
	"duet/appmodules/registry"
	"duet/blockrepl"
	"duet/cluster"
	"duet/cluster/fencing"
	"duet/vmmanager"
	"duet/vmmanager/fitness"
	"duet/vmmanager/images"
)

// The messages between nodes as they were recorded: version1.json by the last build of version
// 1, version2.json by this one, and version1-read.json by that last build, which read
// version2.json and wrote down what it understood. `go test -run Wire -record` writes
// version2.json anew; the others are made by this file in a tree of the older release.
var record = flag.Bool("record", false, "write the messages of this version")

// messages are one of each kind.
func messages() map[string]any {
	m := appmodules.Default()
	m.Name, m.ID, m.Nodes = "web01", "abcdefghijklmnopqrstuvwxyz", []string{"alpha", "beta"}
	m.Spec = appmodules.VM{Domain: "web01", Disks: []appmodules.Volume{{Target: "vda", ID: "0123456789", Size: 1 << 20,
		Paths: map[string]string{"alpha": "/a/vda.raw", "beta": "/b/vda.raw"}}}}
	at := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	s := registry.Stored{Version: registry.Version{Number: 3, Changed: at, By: "alpha"}, Module: m}
	rec := cluster.Record{Epoch: 5, Holder: "alpha", Promised: 6, To: "beta", Complete: 5, Cold: true}
	own := recordedOwn()
	def := engine.Definition{Module: "web01", Version: 2, Text: []byte("<domain/>"), Own: own}
	w := cluster.Witness{Addr: "w:7430", Key: "0a", ID: "x"}
	return map[string]any{
		"ask":        cluster.Ask{Module: m.ID, Node: "beta", Epoch: 6, Complete: 5, Cold: true},
		"answer":     cluster.Answer{Yes: true, Why: "why", Know: rec},
		"handover":   engine.Handover{Module: "web01", From: 5, Epoch: 6},
		"complete":   engine.Complete{Module: "web01", Epoch: 5, Tickets: map[string]blockrepl.Ticket{}},
		"definition": def,
		"told": mirror.Told{State: engine.State{Module: "web01", Incarnation: 7, Seq: 9, Record: rec, Active: true,
			Definition: 2,
			Status: engine.Status{Role: appmodules.Prim, Status: appmodules.Ready, Phase: appmodules.Running, Why: "why",
				Since: at, Epoch: 5, Holder: "alpha", Complete: true, Workload: "running"}}},
		"command": recordedCommand(),
		"removal": removal{Epoch: 5, Module: m.ID},
		"hosting": images.Hosting{ID: "t1", Module: "web01", VM: "web01",
			Places: []protect.Place{{Target: "vda", Size: 1 << 20, Path: "/b/vda.raw"}}},
		"made":    []protect.Made{{Path: "/b/vda.raw", Was: "/b/vda.raw.old"}},
		"module":  registry.Fresh{Stored: s, Source: "alpha", Definition: def},
		"config":  s,
		"judging": fitness.Question{VM: "web01", Text: []byte("<domain/>")},
		"fence": fencing.Set{Node: "beta", Levels: json.RawMessage(
			`[[{"name":"bmc","agent":"fence_ipmilan","options":{"ip":"10.0.0.9"}}]]`)},
		"voters":   cluster.Voters{Version: 3, Active: []cluster.Witness{w}},
		"member":   recordedMember(),
		"findings": []vmmanager.Finding{{Level: vmmanager.Warning, Code: "code", Fact: "fact", Remedy: "remedy"}},
	}
}

func load(t *testing.T, name string) map[string]json.RawMessage {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	must(t, err)
	var out map[string]json.RawMessage
	must(t, json.Unmarshal(b, &out))
	return out
}

// readAs is what a message is read as, written again.
func readAs(t *testing.T, text []byte, like any) []byte {
	t.Helper()
	v := reflect.New(reflect.TypeOf(like))
	must(t, json.Unmarshal(text, v.Interface()))
	again, err := json.Marshal(v.Elem().Interface())
	must(t, err)
	return again
}

func recordedCommand() any { return orders.NewMessage(appmodules.CmdSwap, true) }

func recordedMember() any {
	return cluster.Fact{Member: cluster.Member{Node: "beta", Addrs: map[string]string{"hb1": "10.0.0.2"}, Key: "0a",
		Since: 4}}
}

// TestWireVersion2: what this build sends is what was recorded, which the build of version 1
// has read: so a change of a message shows here, and needs a new version.
func TestWireVersion2(t *testing.T) {
	now, err := json.MarshalIndent(messages(), "", " ")
	must(t, err)
	path := filepath.Join("testdata", "version2.json")
	if *record {
		must(t, os.WriteFile(path, now, 0o644))
	}
	was, err := os.ReadFile(path)
	must(t, err)
	if !bytes.Equal(now, was) {
		t.Errorf("the messages are not those that were recorded:\n%s", now)
	}
}

// TestWireVersion1: what a build of version 1 sends is understood: nothing of it is lost.
func TestWireVersion1(t *testing.T) {
	old := load(t, "version1.json")
	for kind, like := range messages() {
		text, ok := old[kind]
		if !ok {
			t.Errorf("no %s of version 1", kind)
			continue
		}
		var want, got any
		must(t, json.Unmarshal(text, &want))
		must(t, json.Unmarshal(readAs(t, text, like), &got))
		if !contains(got, want) {
			t.Errorf("%s: %s is read as %v", kind, text, got)
		}
	}
	var c orders.Message
	must(t, json.Unmarshal(old["command"], &c))
	if err := c.Check(); err != nil || c.Order() != appmodules.CmdSwap || !c.Yes {
		t.Errorf("the swap of version 1 is %v, %v", c.Order(), err)
	}
	var s registry.Stored
	must(t, json.Unmarshal(old["config"], &s))
	if err := s.Check(); err != nil || s.Module.Identity() != "web01" {
		t.Errorf("a module of version 1 is %q, %v", s.Module.Identity(), err)
	}
}

// TestWireRead1: what the build of version 1 made of this build's messages is what they say.
func TestWireRead1(t *testing.T) {
	read, sent := load(t, "version1-read.json"), load(t, "version2.json")
	for kind := range messages() {
		var got, want any
		must(t, json.Unmarshal(read[kind], &got))
		must(t, json.Unmarshal(sent[kind], &want))
		if !contains(want, got) {
			t.Errorf("%s: %s was read as %s", kind, sent[kind], read[kind])
		}
	}
	var c orders.Message
	if must(t, json.Unmarshal(read["command"], &c)); c.Event != 5 { // CmdSwap's number there
		t.Errorf("version 1 read a swap as %s", read["command"])
	}
}

// contains reports whether everything in small is in big; empty values may be left out.
func contains(big, small any) bool {
	switch s := small.(type) {
	case map[string]any:
		b, ok := big.(map[string]any)
		if !ok {
			return false
		}
		for k, v := range s {
			if !contains(b[k], v) && !empty(v) {
				return false
			}
		}
		return true
	case []any:
		b, ok := big.([]any)
		if !ok || len(b) != len(s) {
			return len(s) == 0 && big == nil
		}
		for i := range s {
			if !contains(b[i], s[i]) {
				return false
			}
		}
		return true
	}
	return reflect.DeepEqual(big, small)
}

func empty(v any) bool {
	if v == nil {
		return true
	}
	rv := reflect.ValueOf(v)
	return rv.IsZero() || (rv.Kind() == reflect.Slice || rv.Kind() == reflect.Map) && rv.Len() == 0
}

// recordedOwn is the definition that a VM had before it was protected.
func recordedOwn() json.RawMessage {
	b, err := json.Marshal(vmmanager.Definition{Name: "web01", Text: []byte("<own/>")})
	if err != nil {
		panic(err)
	}
	return b
}
