package appmodules

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// storedModule is a module as builds before there were kinds with a Spec of their own have stored it.
const storedModule = `{"name":"web01","kind":"vm","nodes":["alpha","beta"],"vm":{"domain":"web"},"policy":{"arbitration":"safe","primary":"last",` +
	`"failback":"manual","restart":{"max":3,"window":"24h0m0s"},"start":{"order":0,"delay":"0s"},"stall_budget":"2s","shutdown":"1m0s",` +
	`"on":{"crash":"restart","panic":"restart","shutdown":"stop","admin":"stop"},"cold_start":"never","split_brain":"keep","fence":"if-needed"},` +
	`"volumes":[{"target":"vda","id":"5f0c","size":1048576,"paths":{"alpha":"/a","beta":"/b"}}]}`

// TestStoredModule: what an earlier build has stored is read as it was meant, and an earlier build finds its keys in
// what is written.
func TestStoredModule(t *testing.T) {
	var m Module
	if err := json.Unmarshal([]byte(storedModule), &m); err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.Name, want.Nodes = "web01", []string{"alpha", "beta"}
	want.Policy.DiskBudget = 0 // which is the default, see Policy.Disk
	want.Policy.Proof, want.Policy.ProofRepair, want.Policy.Restart.Pause = 0, "", 0
	want.Spec = VM{Domain: "web", Disks: []Volume{{Target: "vda", ID: "5f0c", Size: 1 << 20,
		Paths: map[string]string{"alpha": "/a", "beta": "/b"}}}}
	if !reflect.DeepEqual(m, want) {
		t.Errorf("read %+v\nwant %+v", m, want)
	}
	b, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.NewReplacer(`"frozen":"wait",`, "", `"disk_budget":"0s",`,
		"").Replace(string(b)); got != storedModule {
		t.Errorf("written %s\nwant    %s", got, storedModule)
	}
	if err := json.Unmarshal([]byte(`{"name":"a","kind":"of the future"}`), &m); err == nil ||
		!strings.Contains(err.Error(), "newer version") {
		t.Errorf("an unknown kind: %v", err)
	}
	if b, err := json.Marshal(Module{}); err != nil || json.Unmarshal(b, &m) != nil {
		t.Errorf("the zero module: %s, %v", b, err)
	}
}

// TestKindsAreWhole: every kind has its words, a document whose keys are all explained, and a Spec that a document
// makes.
func TestKindsAreWhole(t *testing.T) {
	for _, name := range Kinds() {
		a, err := Kind(name).About()
		if err != nil || a.Text == "" || a.Words.Noun == "" || a.Words.One == "" || a.Words.Inside == "" {
			t.Errorf("%s: %+v, %v", name, a, err)
		}
		doc := a.Document(Module{Kind: Kind(name), Policy: DefaultPolicy()})
		if doc.Module().Spec == nil {
			t.Errorf("%s: its document makes no Spec", name)
		}
		have := paths("", reflect.TypeOf(doc).Elem())
		var told []string
		for _, k := range slices.Concat(CommonKeys, a.Keys) {
			told = append(told, k.Path)
		}
		slices.Sort(have)
		slices.Sort(told)
		if !slices.Equal(have, told) {
			t.Errorf("%s has the keys\n%q\nexplained are\n%q", name, have, told)
		}
		for _, row := range Table() {
			if why := a.Words.Fill(row.Why); strings.ContainsAny(why, "{}") {
				t.Errorf("%s: %q", name, why)
			}
		}
	}
}

// paths lists the keys of a document.
func paths(at string, t reflect.Type) (out []string) {
	for f := range t.Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		path, ft := at+name, f.Type
		if ft.Kind() == reflect.Slice && ft.Elem().Kind() == reflect.Struct {
			path, ft = path+"[]", ft.Elem()
		}
		if ft.Kind() == reflect.Struct {
			out = append(out, paths(path+".", ft)...)
			continue
		}
		out = append(out, path)
	}
	return out
}

// TestStandstill: both policies of this form are read as they are written.
func TestStandstill(t *testing.T) {
	for text, want := range map[string]time.Duration{"wait": 0, "kill after 1m0s": time.Minute} {
		var f Standstill
		if err := f.UnmarshalText([]byte(text)); err != nil || time.Duration(f) != want {
			t.Errorf("%s: %v, %v", text, time.Duration(f), err)
		}
		if b, err := f.MarshalText(); err != nil || string(b) != text {
			t.Errorf("%s is written %q, %v", text, b, err)
		}
	}
	for _, text := range []string{"", "kill", "kill after", "kill after -1m", "after 1m", "never"} {
		if err := new(Standstill).UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q was read", text)
		}
	}
}

// TestRolesTravelAsWords: what is sent is the word, and a newer version's word is none of ours.
func TestRolesTravelAsWords(t *testing.T) {
	type state struct {
		Role   Role   `json:"role"`
		Status Status `json:"status"`
		Phase  Phase  `json:"phase"`
	}
	b, err := json.Marshal(state{Prim, Ready, Running})
	if want := `{"role":"PRIM","status":"Ready","phase":"Running"}`; err != nil || string(b) != want {
		t.Fatalf("%s, %v; want %s", b, err, want)
	}
	var s state
	if err := json.Unmarshal(b, &s); err != nil || s != (state{Prim, Ready, Running}) {
		t.Errorf("read %v, %v", s, err)
	}
	if err := json.Unmarshal([]byte(`{"role":"UP","status":"","phase":"Dreaming"}`), &s); err != nil {
		t.Fatal(err)
	}
	if s.Role <= Second || s.Status <= Ready || s.Phase < phaseCount || s.Role.Acts() {
		t.Errorf("unknown words became %v", s)
	}
}
