package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"duet/console/api"
	"duet/testbed/testcluster"
)

// thing is something that the README tells to break in a kept demo.
type thing struct {
	command string
	exit    int
	words   string                             // that are printed
	then    func(before, now api.Status) error // how it stands soon
}

var things = []thing{
	{"bin/alpha pkill -9 duetd", 0, "", func(before, now api.Status) error {
		if since(before, web, "alpha").Equal(since(now, web, "alpha")) {
			return errors.New("the daemon was not started again")
		}
		return errors.Join(stands(now, web, "alpha", "PRIM"), stands(now, web, "beta", "SECOND"))
	}},
	{"bin/beta pkill -9 qemu", 0, "", func(before, now api.Status) error {
		if since(before, mail, "beta").Equal(since(now, mail, "beta")) {
			return errors.New("mail01 was not started again")
		}
		return errors.Join(stands(now, mail, "beta", "PRIM"), stands(now, mail, "alpha", "SECOND"))
	}},
	{"bin/alpha duet prim web01 --node beta", 1, "use `duet swap web01`", func(_, now api.Status) error {
		return stands(now, web, "alpha", "PRIM")
	}},
	{"bin/alpha duet swap web01", 0, "web01 runs on beta", func(_, now api.Status) error {
		return errors.Join(stands(now, web, "beta", "PRIM"), stands(now, web, "alpha", "SECOND"))
	}},
	{"bin/beta duet volume verify web01/vda", 0, "are identical", func(_, now api.Status) error {
		return stands(now, web, "beta", "PRIM")
	}},
	{"bin/alpha systemctl stop duetd", 0, "", func(_, now api.Status) error {
		return errors.Join(stands(now, web, "beta", "ALONE"), stands(now, mail, "beta", "ALONE"))
	}},
	{"bin/alpha systemctl start duetd", 0, "", func(_, now api.Status) error {
		return errors.Join(stands(now, web, "alpha", "SECOND"), stands(now, mail, "alpha", "SECOND"))
	}},
}

func on(s api.Status, module, node string) (api.NodeState, error) {
	m, err := s.Module(module)
	if err != nil {
		return api.NodeState{}, err
	}
	return m.On(node)
}

func stands(s api.Status, module, node, role string) error {
	n, err := on(s, module, node)
	if err == nil && (n.Role != role || n.Status != "Ready" || n.Stale) {
		err = fmt.Errorf("%s is %s (%s) on %s: %s", module, n.Role, n.Status, node, n.Why)
	}
	return err
}

func since(s api.Status, module, node string) time.Time {
	n, err := on(s, module, node)
	if err != nil {
		return time.Time{}
	}
	return n.Since
}

// printed finds the commands that the README tells to type.
var printed = regexp.MustCompile(`(?m)^(bin/(?:alpha|beta) +\S.*?)\s{2,}# (.+)$`)

// TestThingsToBreak runs the demo to its end, and in what it leaves up each thing that the README tells to break, in
// turn: what the README says beside it is what happens.
func TestThingsToBreak(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: it makes network namespaces and runs libvirtd")
	}
	for _, tool := range []string{"libvirtd", "virsh", "qemu-system-x86_64", "nft", "ip", "pkill"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("needs %s: `make deps` installs it", tool)
		}
	}
	readme, err := os.ReadFile("../../README.md")
	must(t, err)
	var told []string
	for _, m := range printed.FindAllStringSubmatch(string(readme), -1) {
		told = append(told, strings.Join(strings.Fields(m[1]), " "))
	}
	var tried []string
	for _, x := range things {
		tried = append(tried, x.command)
	}
	if strings.Join(told, "\n") != strings.Join(tried, "\n") {
		t.Fatalf("the README tells\n%s\n tried is\n%s", strings.Join(told, "\n"), strings.Join(tried, "\n"))
	}

	caches, err := os.UserCacheDir()
	must(t, err)
	dir := t.TempDir()
	bin := filepath.Join(dir, "bin")
	for _, program := range []string{"duet", "duetd"} {
		build := exec.Command("go", "build", "-tags", "libvirt_dlopen", "-o", filepath.Join(bin, program),
			"duet/cmd/"+program)
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("build %s: %v\n%s", program, err, out)
		}
	}
	ctx, end := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, bin, filepath.Join(caches, "duet-testbed"), true) }()
	t.Cleanup(func() {
		end()
		must(t, <-ended)
	})
	within, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	must(t, testcluster.Until(within, "the demo is over and the cluster is left up", func() error {
		select {
		case err := <-ended:
			ended <- nil
			t.Fatalf("the demo has ended: %v", err)
		default:
		}
		_, err := os.Stat(filepath.Join(bin, "beta"))
		return err
	}))
	look := func() (s api.Status, err error) {
		out, err := typed(within, dir, "bin/beta duet status --json") // its exit code says how the cluster stands
		if json.Unmarshal([]byte(out), &s) == nil && s.Self != "" {
			return s, nil
		}
		return s, fmt.Errorf("%w: %s", err, out)
	}
	if out, err := typed(within, dir, "bin/alpha pwd"); err != nil || strings.TrimSpace(out) != dir {
		t.Errorf("a command on alpha runs in %s, %v, want %s", out, err, dir)
	}
	for _, x := range things {
		before, err := look()
		must(t, err)
		out, err := typed(within, dir, x.command)
		code := 0
		if failed := new(exec.ExitError); errors.As(err, &failed) {
			code = failed.ExitCode()
		}
		if code != x.exit || !strings.Contains(out, x.words) {
			t.Errorf("%s: exit %d, %v\n%s", x.command, code, err, out)
		}
		must(t, testcluster.Until(within, "what is said beside "+x.command, func() error {
			now, err := look()
			if err != nil {
				return err
			}
			return x.then(before, now)
		}))
	}
}

// typed runs a command as a shell in dir does.
func typed(ctx context.Context, dir, command string) (string, error) {
	sh := exec.CommandContext(ctx, "sh", "-c", command)
	sh.Dir = dir
	out, err := sh.CombinedOutput()
	return string(out), err
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
