package testbed

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"path"
	"strings"
	"testing"
)

// rows is the import order: a package imports rows below its own,
// never above and never a neighbour. A pattern may end in * for one path element.
var rows = [][]string{
	0: {"docs", "blockrepl/wire", "blockrepl/durable", "cluster/ratelimit", "cmd/version", "console/web", "testbed/check",
		"testbed/netns", "testbed/proc", "testbed/guest", "testbed/guest/*", "testbed/deps", "testbed/previous"},
	1: {"cluster", "cluster/enroll", "blockrepl", "vmmanager", "lb", "appmodules"},
	2: {"cluster/*", "cluster/doctor/*", "blockrepl/*", "blockrepl/host/*", "vmmanager/*", "lb/*", "appmodules/checker",
		"appmodules/script", "appmodules/safepkg", "appmodules/directory", "appmodules/config", "console/api"},
	3: {
		"cluster/control", "cluster/fencing", "cluster/registrar", "cluster/support", "cluster/voting",
		"appmodules/engine", "appmodules/workload", "appmodules/protect", "blockrepl/host",
		"blockrepl/host/onefile", "console",
		"console/client", "console/journal", "console/outcome", "console/tasks", "console/api/apitest",
	},
	4: { // rooms of the daemon, which know engines and the API
		"appmodules/registry", "appmodules/mirror", "appmodules/stage", "vmmanager/images", "vmmanager/fitness",
		"blockrepl/versions",
		"cluster/survey", "console/metrics",
	},
	5: {"appmodules/orders", "appmodules/restore"}, // know the registry
	6: {"cmd/node", "testbed/sim", "cmd/duet/setup"},
	7: {"cmd/duetd", "cmd/duet", "cmd/packaging", "cmd/packaging/bill", "testbed/libvirtd", "testbed/testcluster",
		"testbed/scenario", "testbed/bench", "testbed/demo", "testbed/campaign", "testbed/knownbugs", "testbed/chaos",
		"testbed/machine", "testbed/machine/*", "testbed"},
}

// family lists parts of one thing that may import each other although they share a
// row: a program of the testbed and its own pieces.
var family = []string{"testbed/"}

// only names third-party modules and the packages that may import them.
var only = map[string][]string{
	"github.com/dgraph-io/badger":         {"blockrepl/badgerlog"},
	"github.com/hashicorp/memberlist":     {"cluster/gossip", "cluster/clustertest"},
	"libvirt.org/go/":                     {"vmmanager/libvirt"},
	"github.com/microsoft/wmi":            {"vmmanager/hyperv"},
	"github.com/google/nftables":          {"lb/nft"},
	"github.com/vishvananda/netlink":      {"lb/vip", "testbed/netns"},
	"github.com/hanwen/go-fuse":           {"blockrepl/host/onefile"},
	"github.com/spf13/cobra":              {"cmd/duet"},
	"github.com/danielgtaylor/huma":       {"console/api"},
	"github.com/goccy/go-yaml":            {"appmodules/config"},
	"github.com/prometheus/client_golang": {"console/metrics"},
}

// pure lists the rows that import the standard library and lower rows only.
const pureRow = 1

type pkg struct {
	ImportPath string
	Doc        string
	Imports    []string
}

func packages(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-tags", "libvirt_dlopen", "-json=ImportPath,Doc,Imports", "duet/...")
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Fatalf("go list: %v\n%s", err, exit.Stderr)
		}
		t.Fatal(err)
	}
	var all []pkg
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		p.ImportPath = strings.TrimPrefix(p.ImportPath, "duet/")
		all = append(all, p)
	}
}

func row(name string) int {
	for i, patterns := range rows {
		for _, p := range patterns {
			if p == name {
				return i
			}
		}
	}
	for i, patterns := range rows {
		for _, p := range patterns {
			if ok, _ := path.Match(p, name); ok {
				return i
			}
		}
	}
	return -1
}

// TestImportOrder keeps the tree a star and not a web.
func TestImportOrder(t *testing.T) {
	for _, p := range packages(t) {
		mine := row(p.ImportPath)
		if mine < 0 {
			t.Errorf("package %s is in no row: give it its place here", p.ImportPath)
			continue
		}
		for _, imp := range p.Imports {
			checkImport(t, p.ImportPath, mine, imp)
		}
	}
}

func checkImport(t *testing.T, from string, mine int, imp string) {
	t.Helper()
	if name, ours := strings.CutPrefix(imp, "duet/"); ours {
		theirs := row(name)
		kin := strings.HasPrefix(name, from+"/") || strings.HasPrefix(from, name+"/")
		for _, f := range family {
			kin = kin || strings.HasPrefix(from, f) && strings.HasPrefix(name, f)
		}
		switch {
		case theirs > mine:
			t.Errorf("%s (row %d) imports %s (row %d) above it", from, mine, name, theirs)
		case theirs == mine && !kin:
			t.Errorf("%s imports its neighbour %s (row %d)", from, name, mine)
		}
		return
	}
	if !strings.Contains(strings.SplitN(imp, "/", 2)[0], ".") {
		return // standard library
	}
	if mine == pureRow {
		t.Errorf("%s is vocabulary and imports %s", from, imp)
	}
	for prefix, allowed := range only {
		if !strings.HasPrefix(imp, prefix) {
			continue
		}
		ok := false
		for _, a := range allowed {
			ok = ok || a == from
		}
		if !ok {
			t.Errorf("%s imports %s, which only %v may", from, imp, allowed)
		}
	}
}

// TestEveryPackageHasItsComment: a stranger reads what a folder is for.
func TestEveryPackageHasItsComment(t *testing.T) {
	for _, p := range packages(t) {
		if p.Doc == "" {
			t.Errorf("package %s has no comment", p.ImportPath)
		}
	}
}
