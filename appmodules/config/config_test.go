package config

import (
	"errors"
	"reflect"
	"strings"
	"testing"
)

const good = `name: web01
kind: vm
nodes: [alpha, beta]
vm: {domain: web01}
policy:
  arbitration: available
  primary: alpha
  failback: auto
  restart: {max: 3, window: 24h}
  start: {order: 10, delay: 5s}
  stall_budget: 2s
  proof: 48h
  proof_repair: auto
volumes:
  - target: vda
    id: 5f0c
    size: 1048576
    paths: {alpha: /srv/web01.raw, beta: /srv/web01.raw}
`

func TestRoundTrip(t *testing.T) {
	m, err := Parse("web01.yaml", []byte(good))
	if err != nil {
		t.Fatal(err)
	}
	text, err := Format(m)
	if err != nil {
		t.Fatal(err)
	}
	again, err := Parse("again.yaml", text)
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	if !reflect.DeepEqual(m, again) {
		t.Fatalf("%+v became %+v", m, again)
	}
}

func TestFaults(t *testing.T) {
	for _, c := range []struct{ name, from, to, want string }{
		{"unknown key", "arbitration:", "arbitation:", `web01.yaml:6: unknown field "arbitation"`},
		{"wrong type", "{max: 3,", "{max: many,", "web01.yaml:9: "},
		{"bare duration", "stall_budget: 2s", "stall_budget: 2", "not a duration"},
		{"out of range", "{max: 3,", "{max: -1,", "web01.yaml:9: policy.restart.max: must be from 0 to 1000"},
		{"out of all bounds", "{max: 3,", "{max: 1000000000000,", "web01.yaml:9: policy.restart.max: must be from 0 to 1000"},
		{"no effect", "primary: alpha", "primary: last", "web01.yaml:8: policy.failback: auto has no effect while " +
			"policy.primary is last: give policy.primary the node"},
		{"no effect either", "primary: alpha", "primary: any", "while policy.primary is any"},
		{"no pass", "proof: 48h", "proof: daily", `neither "week" nor "off"`},
		{"no rule", "proof_repair: auto", "proof_repair: always",
			`web01.yaml:13: policy.proof_repair: "always" is not one of`},
		{"no such node", "primary: alpha", "primary: gamma", `web01.yaml:7: policy.primary: "gamma" is not one of`},
		{"missing", "vm: {domain: web01}\n", "", "vm.domain: is missing"},
		{"in a list", "size: 1048576", "size: 5", "web01.yaml:17: volumes[0].size"},
		{"not yaml", "kind: vm", "kind: [vm", "web01.yaml:"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Parse("web01.yaml", []byte(strings.Replace(good, c.from, c.to, 1)))
			if !errors.Is(err, ErrFaulty) || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("error is %v, want it to say %q", err, c.want)
			}
		})
	}
}

// TestMistypedIsNamed: what stands where something else is wanted is told by its path and in words.
func TestMistypedIsNamed(t *testing.T) {
	for edit, want := range map[string]string{
		"max: three":          "policy.restart.max: a number is wanted, not \"three\"",
		"order: [1]":          "policy.start.order: a number is wanted",
		"restart: often":      "policy.restart: a block of keys is wanted, not \"often\"",
		"nodes: alpha":        "nodes: a list is wanted, not \"alpha\"",
		"window: a day or so": "policy.restart.window",
	} {
		key, _, _ := strings.Cut(edit, ":")
		lines := strings.Split(block, "\n")
		for i, l := range lines {
			if k := strings.TrimLeft(l, " "); strings.HasPrefix(k, key+":") {
				lines[i] = l[:len(l)-len(k)] + edit
				if key == "restart" {
					lines = append(lines[:i+1], lines[i+3:]...)
				}
				break
			}
		}
		_, err := Parse("web01.yaml", []byte(strings.Join(lines, "\n")))
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "Go ") {
			t.Errorf("%s: %v", edit, err)
		}
	}
}

// block is a module with one key on each line.
const block = `name: web01
kind: vm
nodes: [alpha, beta]
vm:
  domain: web01
policy:
  restart:
    max: 3
    window: 24h # a comment
  start:
    order: 10
volumes:
  - target: vda
    id: 5f0c
    size: 1048576
    paths:
      alpha: /srv/web01.raw
      beta: /srv/web01.raw
`

// TestSet: one value is exchanged and nothing else; what is no key, or no value, is refused.
func TestSet(t *testing.T) {
	got, err := Set([]byte(block), "policy.restart.max", "5")
	if want := strings.Replace(block, "max: 3", "max: 5", 1); err != nil || string(got) != want {
		t.Errorf("%v:\n%s", err, got)
	}
	for _, c := range [][2]string{{"policy.restart", "5"}, {"policy.nosuch", "5"}, {"policy..max", "5"}, {"", "5"},
		{"policy.restart.max", "[5"}} {
		if got, err := Set([]byte(block), c[0], c[1]); !errors.Is(err, ErrFaulty) {
			t.Errorf("%q = %q: %v\n%s", c[0], c[1], err, got)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(good))
	f.Add([]byte("a: &a [*a]"))
	f.Fuzz(func(t *testing.T, text []byte) {
		m, err := Parse("fuzz.yaml", text)
		if err != nil {
			return
		}
		if faults := m.Validate(); len(faults) != 0 {
			t.Fatalf("accepted with faults %v", faults)
		}
	})
}
