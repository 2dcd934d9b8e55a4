package config

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"
)

// TestMistakesAreTold: each mistake of an admin is told with the file, its line, the key, what is wrong and what may be
// there; what was meant otherwise is not guessed.
func TestMistakesAreTold(t *testing.T) {
	for what, c := range map[string]struct{ from, to, want string }{
		"a kind of a newer version": {"kind: vm", "kind: farm",
			`web01.yaml:2: kind: kind "farm" is not one of mirror, vm: it may be of a newer version`},
		"a key twice":      {"name: web01\n", "name: web01\nname: web02\n", `web01.yaml:2: mapping key "name" already defined`},
		"a key of another": {"  domain: web01", "  domain: web01\n  cpu: 3", `web01.yaml:6: unknown field "cpu"`},
		"a tab":            {"name: web01\n", "\tname: web01\n", "web01.yaml:1: tab"},
		"two equal nodes": {"[alpha, beta]", "[alpha, alpha]",
			"web01.yaml:3: nodes: a vm module needs two different nodes"},
		"a size in words": {"size: 1048576", "size: 1M", `web01.yaml:15: volumes[0].size: a number is wanted, not "1M"`},
		"a list as a target": {"target: vda", "target: [vda]",
			`web01.yaml:13: volumes[0].target: a text is wanted`},
		"a list of paths": {"      alpha: /srv/web01.raw\n      beta: /srv/web01.raw", "      - alpha",
			"volumes[0].paths: a block of keys is wanted"},
		"a node without an image": {"alpha: /srv", "alhpa: /srv", `volumes[0].paths: node "alpha" has no image`},
		"a path as a target": {"target: vda", "target: ../vda",
			`web01.yaml:13: volumes[0].target: "../vda" is no plain name such as vda`},
		"a path as an ID": {"id: 5f0c", "id: a/b", `web01.yaml:14: volumes[0].id: "a/b" is no plain name`},
		"a cold start in a time only": {"  start:", "  cold_start: 5m\n  start:",
			`web01.yaml:10: policy.cold_start: "5m" is neither "never" nor such as "after 5m"`},
		"a standstill that never ends": {"  start:", "  frozen: kill after 0s\n  start:",
			`web01.yaml:10: policy.frozen: "kill after 0s" is neither "wait" nor such as "kill after 5m"`},
		"a pause that is too short": {"max: 3", "max: 3\n    pause: 200ms",
			`web01.yaml:9: policy.restart.pause: "200ms" is not a duration from 1s to 1h`},
		"a pause that is right elsewhere": {"max: 3", "max: 3\n    pause: vda",
			`web01.yaml:9: policy.restart.pause: "vda" is not a duration from 1s to 1h`},
		"a budget that is too long": {"  start:", "  stall_budget: 2h\n  start:",
			"web01.yaml:10: policy.stall_budget: 2h must be from 200ms to 1m"},
		"a reaction that is none": {"  start:", "  on:\n    panic: reboot\n  start:",
			`web01.yaml:11: policy.on.panic: "reboot" is not one of restart, failover, stop`},
		"an alias of nothing": {"name: web01", "name: *web", `web01.yaml:1: could not find alias "web"`},
		"no VM":               {"  domain: web01\n", "", "web01.yaml:4: vm.domain: is missing"},
		"a text":              {block, "hello", "web01.yaml:1: "},
	} {
		text := strings.Replace(block, c.from, c.to, 1)
		_, err := Parse("web01.yaml", []byte(text))
		if text == block || !errors.Is(err, ErrFaulty) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", what, err, c.want)
		}
	}
	text := strings.NewReplacer("max: 3", "max: -3", "order: 10", "delay: -1s", "size: 1048576",
		"size: 100").Replace(block)
	_, err := Parse("web01.yaml", []byte(text))
	if err == nil || strings.Count(err.Error(), "\n") != 2 {
		t.Errorf("three faults: %v", err)
	}
	if _, err := Parse("big.yaml", []byte(block+"#"+strings.Repeat("x", maxSize))); !errors.Is(err, ErrFaulty) ||
		!strings.Contains(err.Error(), "at most 262144 are read") {
		t.Errorf("a file that is too large: %v", err)
	}
}

// TestParseOnto: what the text leaves out, or leaves empty, is as it was.
func TestParseOnto(t *testing.T) {
	m, err := Parse("web01.yaml", []byte(block))
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"{}", "policy:\n", "policy:\n  restart:\n", "nodes: ~\n", "vm:\n"} {
		if same, err := ParseOnto(m, "part", []byte(text)); err != nil || !reflect.DeepEqual(same, m) {
			t.Errorf("%q makes %+v, %v", text, same, err)
		}
	}
	next, err := ParseOnto(m, "part", []byte("policy: {restart: {max: 7}}\n"))
	if err != nil || next.Policy.Restart.Max != 7 || time.Duration(next.Policy.Restart.Window) != 24*time.Hour ||
		next.Name != "web01" || len(next.Volumes()) != 1 {
		t.Errorf("it makes %+v, %v", next, err)
	}
	if _, err := ParseOnto(m, "part", []byte("kind: farm")); !errors.Is(err, ErrFaulty) {
		t.Errorf("of another kind: %v", err)
	}
}

// TestSetKeepsTheRest: one value, also in a list, is exchanged; comments, order and the other lines stay, and what
// cannot be a value does not become one.
func TestSetKeepsTheRest(t *testing.T) {
	for path, c := range map[string]struct{ value, from, to string }{
		"nodes[1]":              {"gamma", "[alpha, beta]", "[alpha, gamma]"},
		"volumes[0].target":     {"vdb", "target: vda", "target: vdb"},
		"volumes[0].paths.beta": {"/b.raw", "beta: /srv/web01.raw", "beta: /b.raw"},
		"policy.start.order":    {"-1", "order: 10", "order: -1"},
		"nodes":                 {"[a, b]", "[alpha, beta]", "[a, b]"},
	} {
		got, err := Set([]byte(block), path, c.value)
		if want := strings.Replace(block, c.from, c.to, 1); err != nil || string(got) != want {
			t.Errorf("%s: %v:\n%s", path, err, got)
		}
	}
	for path, value := range map[string]string{"volumes[7].target": "x", "name[0]": "x", "$": "x", "vm": "3",
		"volumes[0].paths": "x", "policy.restart.max": "5\nextra: 1", "policy.": "5"} {
		if got, err := Set([]byte(block), path, value); !errors.Is(err, ErrFaulty) || got != nil {
			t.Errorf("%q = %q: %v\n%s", path, value, err, got)
		}
	}
	if _, err := Set([]byte("name: [web"), "name", "x"); !errors.Is(err, ErrFaulty) {
		t.Errorf("in what is no YAML: %v", err)
	}
}
