package support

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"duet/cluster"
	"duet/cluster/membership"
)

// Bounds of collecting.
const (
	commandTime = 10 * time.Second // of each program; they run at once
	maxJournal  = 512 << 10        // bytes of the journal of one module
)

// command is a program whose output is kept. The file is its name in the part. No shell is between. Where it has
// nothing to say, instead is what an admin can send.
type command struct {
	file    string
	args    []string
	instead string
}

// commands tell of this computer. What they print is small but for the logs.
var commands = []command{
	{"duetd.log", []string{"journalctl", "-u", "duetd", "-n", "20000", "--no-pager", "-o", "short-iso-precise"},
		"if duetd does not run as that unit, send the file that its standard error goes to: " +
			"`ls -l /proc/$(pidof -s duetd)/fd/2` names it"},
	{"libvirtd.log", []string{"journalctl", "-u", "libvirtd", "-u", "virtqemud", "-n", "2000", "--no-pager", "-o",
		"short-iso-precise"},
		"if libvirt logs to a file (log_outputs in /etc/libvirt/*.conf), send that, as /var/log/libvirt/libvirtd.log"},
	{"host/addresses.txt", []string{"ip", "-br", "addr"}, ""},
	{"host/routes.txt", []string{"ip", "route"}, ""},
	{"host/df.txt", []string{"df", "-hT"}, ""},
}

// files tell of this computer.
var files = []struct{ file, path string }{
	{"host/kernel.txt", "/proc/version"},
	{"host/os-release.txt", "/etc/os-release"},
	{"host/meminfo.txt", "/proc/meminfo"},
	{"host/pressure-cpu.txt", "/proc/pressure/cpu"},
	{"host/pressure-io.txt", "/proc/pressure/io"},
	{"host/pressure-memory.txt", "/proc/pressure/memory"},
	{"host/load.txt", "/proc/loadavg"},
	{"host/uptime.txt", "/proc/uptime"},
}

// Collect gathers what this computer and the directory of its node tell. The part is not sealed: the caller adds
// what it knows itself and seals it with the secrets. It is for root, and takes some ten seconds at worst. A
// directory of no member is no error: the part then says so. It reads files without ctx, which ends only programs.
func Collect(ctx context.Context, dir string) (p Part, secrets []string) {
	c, err := membership.Load(dir)
	p.Node = string(c.Self)
	if p.Node == "" {
		p.Node = "this-host"
	}
	secrets = secretsOf(dir, c)
	p.addConfig(c, err)
	for _, f := range files {
		p.addFile(f.file, f.path)
	}
	journals, _ := filepath.Glob(filepath.Join(dir, "log", "*.jsonl*")) // the pattern is well formed
	for _, j := range journals {
		b, err := os.ReadFile(j)
		if err != nil {
			p.Leave("journal %s: %v", filepath.Base(j), err)
			continue
		}
		p.Add("journal/"+filepath.Base(j), last(b, maxJournal))
	}
	said := make([]output, len(commands))
	var wg sync.WaitGroup
	for i, cmd := range commands {
		wg.Go(func() { said[i] = run(ctx, cmd.args) })
	}
	wg.Wait()
	for i, cmd := range commands {
		p.addOutput(cmd, said[i])
	}
	return p, secrets
}

func (p *Part) addConfig(c cluster.Config, err error) {
	var text []byte
	if err == nil {
		text, err = shownConfig(c)
	}
	if err != nil {
		p.Leave("configuration of the cluster: %v", err)
		return
	}
	p.Add("cluster.json", text)
}

func (p *Part) addFile(name, path string) {
	b, err := os.ReadFile(path)
	if err != nil {
		p.Leave("%s: %v", name, err)
		return
	}
	p.Add(name, b)
}

// other is what to send in the place of what the program did not say, behind a sentence.
func (c command) other() string {
	if c.instead == "" {
		return ""
	}
	return ": " + c.instead
}

// output is what a program said.
type output struct {
	text []byte // the last of it
	err  error
}

// addOutput keeps what a program said before it failed too, with a word on the rest: it may help.
func (p *Part) addOutput(cmd command, o output) {
	what := strings.Join(cmd.args, " ")
	switch {
	case errors.Is(o.err, exec.ErrNotFound):
		p.Leave("%s: there is no program %s here%s", cmd.file, cmd.args[0], cmd.other())
	case o.err != nil && len(o.text) == 0:
		p.Leave("%s: `%s`: %v", cmd.file, what, o.err)
	case cmd.args[0] == "journalctl" && !bytes.Contains(o.text, []byte("\n")) ||
		bytes.HasPrefix(o.text, []byte("-- No entries --")):
		p.Leave("%s: `journalctl -u %s` has nothing on this host%s", cmd.file, cmd.args[2], cmd.other())
	default:
		p.Add(cmd.file, o.text)
		if o.err != nil {
			p.Leave("the rest of %s: `%s`: %v", cmd.file, what, o.err)
		}
	}
}

// run runs a program and keeps the end of what it prints. What it writes to standard error is dropped. A child of it
// that keeps the pipe open is waited for one second more.
func run(ctx context.Context, args []string) output {
	ctx, cancel := context.WithTimeout(ctx, commandTime)
	defer cancel()
	var end tail
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Stdout = &end
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	return output{last(end.b, maxFile), err}
}

// tail keeps the last maxFile bytes, or some more, of what is written to it. It never holds more than twice that and
// one write, and copies only when it is cut.
type tail struct{ b []byte }

// Write never fails.
func (t *tail) Write(p []byte) (int, error) {
	t.b = append(t.b, p...)
	if len(t.b) > 2*maxFile {
		t.b = append([]byte(nil), t.b[len(t.b)-maxFile:]...)
	}
	return len(p), nil
}
