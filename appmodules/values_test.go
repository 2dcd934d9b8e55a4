package appmodules

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// whole is a module with every part.
func whole() Module {
	m := Default()
	m.Name, m.ID, m.Nodes = "web01", "abcdefghijklmnopqrst", []string{"alpha", "beta"}
	m.Spec = VM{Domain: "web", Disks: []Volume{{Target: "vda", ID: "5f0c", Size: 1 << 20,
		Paths: map[string]string{"alpha": "/a", "beta": "/b"}}}}
	return m
}

// TestEveryFaultIsTold: each value at its edge is taken, and beyond it the fault names the key; faults do not hide each
// other.
func TestEveryFaultIsTold(t *testing.T) {
	disk := func(how func(*Volume)) func(*Module) { return func(m *Module) { how(&m.Spec.(VM).Disks[0]) } }
	for what, c := range map[string]struct {
		spoil func(*Module)
		want  []string // paths
	}{
		"nothing":               {func(*Module) {}, nil},
		"the longest name":      {func(m *Module) { m.Name = strings.Repeat("a", 39) }, nil},
		"a longer name":         {func(m *Module) { m.Name = strings.Repeat("a", 40) }, []string{"name"}},
		"a name that is a flag": {func(m *Module) { m.Name = "-a" }, []string{"name"}},
		"an early module":       {func(m *Module) { m.ID = "" }, nil},
		"half an ID":            {func(m *Module) { m.ID = m.ID[1:] }, []string{"id"}},
		"a kind of the future":  {func(m *Module) { m.Kind = "farm" }, []string{"kind"}},
		"one node":              {func(m *Module) { m.Nodes = []string{"alpha"} }, []string{"nodes"}},
		"no node's name":        {func(m *Module) { m.Nodes = []string{"alpha", ""} }, []string{"nodes", "volumes[0].paths"}},
		"a stall at the edge":   {func(m *Module) { m.Policy.StallBudget = Duration(time.Minute) }, nil},
		"a stall below it": {func(m *Module) { m.Policy.StallBudget = Duration(199 * time.Millisecond) },
			[]string{"policy.stall_budget"}},
		"a disk that never counts": {func(m *Module) { m.Policy.DiskBudget = Duration(11 * time.Minute) },
			[]string{"policy.disk_budget"}},
		"a disk budget of old": {func(m *Module) { m.Policy.DiskBudget = 0 }, nil},
		"no time to shut down": {func(m *Module) { m.Policy.Shutdown = Duration(999 * time.Millisecond) },
			[]string{"policy.shutdown"}},
		"a reaction of none":   {func(m *Module) { m.Policy.On.Admin = "" }, []string{"policy.on.admin"}},
		"a stranger":           {func(m *Module) { m.Policy.Primary = "gamma" }, []string{"policy.primary"}},
		"half a sector":        {disk(func(v *Volume) { v.Size = 1000 }), []string{"volumes[0].size"}},
		"a disk of nothing":    {disk(func(v *Volume) { v.Size = 0 }), []string{"volumes[0].size"}},
		"a target of dots":     {disk(func(v *Volume) { v.Target = ".." }), []string{"volumes[0].target"}},
		"an ID that is a path": {disk(func(v *Volume) { v.ID = "a/../b" }), []string{"volumes[0].id"}},
		"a disk twice": {func(m *Module) { m.Spec = m.Spec.On(append(m.Volumes(), m.Volumes()[0])) },
			[]string{"volumes[1].target"}},
		"much at once": {func(m *Module) {
			m.Name, m.Policy.Fence, m.Policy.SplitBrain, m.Policy.Arbitration = "", "always", "", "brave"
			m.Policy.Restart.Max, m.Policy.Restart.Window, m.Policy.Start.Delay = -1, -1, -1
		}, []string{"name", "policy.arbitration", "policy.fence", "policy.restart.max", "policy.restart.window",
			"policy.split_brain", "policy.start.delay"}},
	} {
		m := whole()
		c.spoil(&m)
		var got []string
		for _, f := range m.Validate() {
			if got = append(got, f.Path); f.Text == "" {
				t.Errorf("%s: %s says nothing", what, f.Path)
			}
		}
		slices.Sort(got)
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: faults at %q, want %q", what, got, c.want)
		}
	}
}

// TestNames: the name of a module follows from that of its VM, is a name in any case, and is not taken.
func TestNames(t *testing.T) {
	long := strings.Repeat("x", 60)
	for subject, c := range map[string]struct {
		taken []string
		want  string
	}{
		"Web_01.local": {nil, "web-01-local"}, "--": {nil, "vm"}, "Größe": {nil, "gr--e"},
		"db01": {[]string{"db01", "db01-2"}, "db01-3"}, long: {[]string{long[:39]}, long[:37] + "-2"},
		strings.Repeat("x", 38) + "-y": {nil, strings.Repeat("x", 38)},
	} {
		got := NameFor(subject, func(name string) bool { return slices.Contains(c.taken, name) })
		if got != c.want || !moduleName.MatchString(got) {
			t.Errorf("%q makes %q, want %q", subject, got, c.want)
		}
	}
}

// TestEditsOfAVM: an edit may change neither the VM nor its disks, and the refusal says what to do instead.
func TestEditsOfAVM(t *testing.T) {
	have := whole().Spec
	if err := have.Keeps(whole().Spec); err != nil {
		t.Errorf("the same: %v", err)
	}
	other := whole().Spec.(VM)
	other.Disks[0].Paths["beta"] = "/elsewhere"
	for what, next := range map[string]Spec{"another VM": VM{Domain: "db", Disks: have.Volumes()}, "no disk": have.On(nil),
		"another place": other, "nothing": nil} {
		if err := have.Keeps(next); err == nil || !strings.Contains(err.Error(), "release the VM and protect it anew") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestModuleOfNothing: the zero module, and one without disks, can be asked; what links its nodes is named after it.
func TestModuleOfNothing(t *testing.T) {
	var zero Module
	if zero.Volumes() != nil || zero.Subject() != "" || zero.Peer("alpha") != "" {
		t.Errorf("the zero module has %v, %q", zero.Volumes(), zero.Subject())
	}
	m := whole()
	m.Spec = m.Spec.On(nil)
	if all := m.Replicated(); len(all) != 1 || !all[0].IsLink() || all[0].ID != "link-abcdefghijklmnopqrst" {
		t.Errorf("its nodes are linked by %+v", all)
	}
	if m.ID = ""; m.Replicated()[0].ID != "link-web01" || m.Identity() != "web01" {
		t.Error("a module of an early release has its name as its identity")
	}
	for primary, want := range map[string]string{"last": "", "any": "", "beta": "beta"} {
		if m.Policy.Primary = primary; m.Preferred() != want {
			t.Errorf("%s: preferred is %q", primary, m.Preferred())
		}
	}
}

// TestWords: a sentence of the table has the nouns of its kind, and neutral ones for a kind that is not known.
func TestWords(t *testing.T) {
	const why = "a {workload} runs; the {workload} waits for its {guest}"
	for kind, want := range map[Kind]string{KindVM: "a VM runs; the VM waits for its guest",
		"":     "a VM runs; the VM waits for its guest",
		"farm": "a workload runs; the workload waits for its workload"} {
		if got := kind.Words().Fill(why); got != want {
			t.Errorf("%q: %q", kind, got)
		}
	}
	app := Words{Noun: "app", One: "an app", Inside: "process"}
	if got := app.Fill(why); got != "an app runs; the app waits for its process" {
		t.Errorf("an app: %q", got)
	}
	if Kind("farm").Defined() || !KindVM.Defined() {
		t.Error("a definition goes with a VM, and with nothing that is not known")
	}
	defer func() {
		if recover() == nil {
			t.Error("a kind is there twice")
		}
	}()
	Register(KindVM, About{})
}

// FuzzModule: what is read of a module is written so that the same is read again, whoever sent it.
func FuzzModule(f *testing.F) {
	f.Add([]byte(storedModule))
	f.Add([]byte(`{"kind":"farm"}`))
	f.Add([]byte(`{"policy":{"cold_start":"after 5m","frozen":"kill after 1m","proof":"off","proof_repair":"auto"}}`))
	f.Add([]byte(`{"name":"a","policy":{"restart":{"pause":"1h"},"stall_budget":"-1ns"},"volumes":[{}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var m, again Module
		if json.Unmarshal(text, &m) != nil {
			return
		}
		b, err := json.Marshal(m)
		if err != nil {
			t.Fatalf("%q was read and cannot be written: %v", text, err)
		}
		if err := json.Unmarshal(b, &again); err != nil || !reflect.DeepEqual(m.Validate() == nil, again.Validate() == nil) ||
			m.Identity() != again.Identity() || m.Policy.Proof.Every() != again.Policy.Proof.Every() {
			t.Errorf("%q is written %s, %v", text, b, err)
		}
	})
}
