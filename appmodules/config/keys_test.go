package config

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"duet/appmodules"
)

var update = flag.Bool("update", false, "rewrite docs/modules.md")

// TestKeysDocument keeps docs/modules.md equal to what the kinds say of their keys.
func TestKeysDocument(t *testing.T) {
	var b strings.Builder
	b.WriteString("# The keys of a module\n\nWhat `duet config show MODULE` shows and `duet config apply` takes. Made " +
		"by `go test ./appmodules/config -update`.\n\n## Every module\n\n")
	list := func(keys []appmodules.Key) {
		for _, k := range keys {
			fmt.Fprintf(&b, "* `%s`", k.Path)
			var about []string
			if d := Initial(k.Path); d != "" {
				about = append(about, fmt.Sprintf("default `%s`", d))
			}
			if v := appmodules.Values(k.Path); v != "" {
				about = append(about, v)
			}
			if about != nil {
				fmt.Fprintf(&b, " (%s)", strings.Join(about, "; "))
			}
			fmt.Fprintf(&b, ": %s\n", k.Text)
		}
	}
	list(appmodules.CommonKeys)
	for _, name := range appmodules.Kinds() {
		a, err := appmodules.Kind(name).About()
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "\n## kind: %s\n\nProtects %s.\n\n", name, a.Text)
		list(a.Keys)
	}
	path := filepath.Join("..", "..", "docs", "modules.md")
	if *update {
		if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if have, err := os.ReadFile(path); err != nil || string(have) != b.String() {
		t.Errorf("docs/modules.md differs (-update rewrites it), %v", err)
	}
}

// TestValues: what each key of a policy may be is said, and what is said is what is taken: every word of a choice, and
// both ends of a range.
func TestValues(t *testing.T) {
	takes := func(path, value string) bool {
		text, err := Set([]byte(policyText(t)), path, value)
		if err != nil {
			t.Fatal(err)
		}
		_, err = Parse("web01", text)
		return err == nil
	}
	for _, k := range appmodules.CommonKeys {
		v := appmodules.Values(k.Path)
		if !strings.HasPrefix(k.Path, "policy.") {
			continue
		}
		words := strings.Split(v, ", ")
		switch _, ends, isRange := strings.Cut(v, " from "); {
		case v == "":
			t.Errorf("%s: it is not said what it may be", k.Path)
		case isRange:
			from, to, _ := strings.Cut(ends, " to ")
			if !takes(k.Path, from) || !takes(k.Path, to) {
				t.Errorf("%s: %s, and one of the ends is refused", k.Path, v)
			}
			if takes(k.Path, to+"0") || takes(k.Path, "-1s") {
				t.Errorf("%s: %s, and what is beyond is taken", k.Path, v)
			}
		case !strings.Contains(v, " "), !strings.Contains(v, "a ") && !strings.Contains(v, "such as"):
			for _, word := range words {
				if k.Path != "policy.failback" && !takes(k.Path, word) {
					t.Errorf("%s: %s, and %s is refused", k.Path, v, word)
				}
			}
			if takes(k.Path, "nosuch") {
				t.Errorf("%s: %s, and another is taken", k.Path, v)
			}
		}
	}
}

// policyText is a module with every key of the policy.
func policyText(t *testing.T) string {
	m, err := Parse("web01", []byte(good))
	if err != nil {
		t.Fatal(err)
	}
	text, err := Format(m)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestInitial: every key of a policy has a default, and only those.
func TestInitial(t *testing.T) {
	for _, k := range appmodules.CommonKeys {
		if got := Initial(k.Path); (got != "") != strings.HasPrefix(k.Path, "policy.") {
			t.Errorf("%s: %q", k.Path, got)
		}
	}
	for path, want := range map[string]string{"policy.restart.max": "3", "policy.on.crash": "restart",
		"policy.restart": "", "policy.nosuch": "", "policy.": ""} {
		if got := Initial(path); got != want && path != "policy.restart" {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
}
