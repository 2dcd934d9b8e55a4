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
			if d := Initial(k.Path); d != "" {
				fmt.Fprintf(&b, " (default `%s`)", d)
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
