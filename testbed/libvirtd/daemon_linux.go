package libvirtd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"duet/testbed/proc"
)

// MigrationPort is the TCP port on which each daemon takes part in live migrations, without authentication: it is
// reachable in the node's network namespace only.
const MigrationPort = 16509

const socket = "/run/libvirt/libvirt-sock"

// Config describes one daemon.
type Config struct {
	Dir string // the node's private folder; domain definitions and logs stay there when the node is off
	// Capabilities is a folder, shared by all nodes and runs, in which the answers of QEMU's slow first questioning are
	// kept. "" asks QEMU anew on each node.
	Capabilities string
}

// Daemon is the libvirt daemon of one node. New builds it, Start runs it.
type Daemon struct {
	cfg  Config
	node *proc.Node
	run  *proc.Process // nil before the first Start
}

// own is what must differ from the distribution's configuration in a node, each line with its reason. Everything else,
// above all the user that QEMU runs as and who owns images, is as every admin has it.
var own = map[string][]string{
	"qemu.conf": {
		`stdio_handler = "file"`, // no systemd starts virtlogd on demand
	},
	"libvirtd.conf": {
		// Live migrations go by plain TCP: there are no certificates and no accounts.
		`listen_tls = 0`, `listen_tcp = 1`, `listen_addr = "0.0.0.0"`, `auth_tcp = "none"`,
		`auth_unix_ro = "none"`, `auth_unix_rw = "none"`, // no polkit
		`log_outputs = "3:stderr"`, // no journal
	},
}

// fill copies from to dir, all of it or, where something lies in dir already, nothing.
func fill(dir string, from fs.FS) error {
	half, err := os.MkdirTemp(filepath.Dir(dir), "half-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(half)
	if err := errors.Join(os.CopyFS(half, from), os.Chmod(half, 0o755)); err != nil {
		return err
	}
	if err := unix.Rename(half, dir); !errors.Is(err, fs.ErrExist) { // os.Rename refuses an empty directory, too
		return err
	}
	return nil
}

// configure copies the distribution's configuration to the node's own and adds what must differ, and lines more.
func configure(dir string, lines map[string][]string) error {
	if err := fill(dir, os.DirFS("/etc/libvirt")); err != nil {
		return err
	}
	for file, mine := range lines {
		path := filepath.Join(dir, file)
		stock, err := os.ReadFile(filepath.Join("/etc/libvirt", file))
		if err != nil {
			return err
		}
		for _, line := range mine {
			key, _, _ := strings.Cut(line, " ")
			if set := regexp.MustCompile(`(?m)^\s*` + key + `\b`); set.Match(stock) { // libvirt takes the first of two
				stock = set.ReplaceAll(stock, []byte("# ${0}"))
			}
			stock = append(stock, line+"\n"...)
		}
		if err := os.WriteFile(path, stock, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// Prepare writes the configuration of a daemon and returns the folders that its node must be made with. It
// writes the files of own anew each time; the others are copied only where the directory is new.
func Prepare(cfg Config, name string) ([]proc.Bind, error) {
	var binds []proc.Bind
	for _, part := range []string{"/etc/libvirt", "/var/lib/libvirt", "/var/cache/libvirt", "/var/log/libvirt"} {
		own := cfg.path(part)
		if err := os.MkdirAll(own, 0o755); err != nil {
			return nil, fmt.Errorf("prepare libvirtd of %s: %w", name, err)
		}
		binds = append(binds, proc.Bind{Source: own, Target: part})
	}
	lines := maps.Clone(own)
	lines["libvirtd.conf"] = append(slices.Clone(own["libvirtd.conf"]),
		fmt.Sprintf(`tcp_port = "%d"`, MigrationPort),
		fmt.Sprintf(`host_uuid = "%s"`, hostUUID(name))) // all nodes share the computer's
	if err := configure(cfg.path("/etc/libvirt"), lines); err != nil {
		return nil, fmt.Errorf("prepare libvirtd of %s: %w", name, err)
	}
	return binds, nil
}

// path returns where a folder of the node lies outside it. Slashes become dashes, so that it is one folder below
// Dir.
func (c Config) path(inside string) string {
	return filepath.Join(c.Dir, strings.ReplaceAll(strings.TrimPrefix(inside, "/"), "/", "-"))
}

// New returns the daemon of a node that was made with the folders of Prepare. It starts nothing.
func New(node *proc.Node, cfg Config) *Daemon { return &Daemon{cfg: cfg, node: node} }

// Log is the file of the daemon's own messages.
func (d *Daemon) Log() string { return filepath.Join(d.cfg.Dir, "libvirtd.log") }

// Start runs the daemon and returns when it has answered. It does nothing if the daemon runs. The node must be
// on. On an error the daemon does not run. The first start on a computer asks QEMU for its capabilities, for
// some seconds.
func (d *Daemon) Start(ctx context.Context) error {
	if d.Running() {
		return nil
	}
	err := d.start(ctx)
	if err == nil {
		return nil
	}
	if d.Running() {
		err = errors.Join(err, d.run.Kill())
		<-d.run.Done()
	}
	return fmt.Errorf("start libvirtd of %s: %w", d.node.Name(), err)
}

// udev gives /dev/kvm to the group of QEMU's user, where udev runs. Where it does not, libvirt takes what it knows of
// QEMU for outdated at each look, and asks QEMU anew for seconds.
const udev = `[ ! -e /dev/kvm ] || [ -e /run/kvm ] || {
	mknod -m 660 /run/kvm c 10 232 && chgrp kvm /run/kvm && mount --bind /run/kvm /dev/kvm
}`

func (d *Daemon) start(ctx context.Context) error {
	if err := d.loadCapabilities(); err != nil {
		return err
	}
	if _, err := d.node.Run(ctx, "sh", "-c", udev); err != nil {
		return err
	}
	p, err := d.node.Start(proc.Spec{Path: "libvirtd", Args: []string{"--listen"}, Output: d.Log()})
	if err != nil {
		return err
	}
	d.run = p
	if err := d.answered(ctx); err != nil {
		return err
	}
	// The question for what QEMU can do is the slow one: it is answered here so that no test waits for it later.
	if _, err := d.Virsh(ctx, "domcapabilities", "--virttype", "qemu", "--machine", "pc"); err != nil {
		return err
	}
	return d.saveCapabilities()
}

// answered waits until the daemon accepts connections.
func (d *Daemon) answered(ctx context.Context) error {
	path, err := d.node.Outside(socket)
	if err != nil {
		return err
	}
	for {
		conn, err := net.Dial("unix", path)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-d.run.Done():
			code, _ := d.run.Wait(ctx) // it has ended: no error
			return fmt.Errorf("it ended with exit code %d, see %s", code, d.Log())
		case <-ctx.Done():
			return fmt.Errorf("%w (%w)", ctx.Err(), err)
		}
	}
}

// Running tells whether the daemon's process is there. A daemon that hangs is there as well.
func (d *Daemon) Running() bool {
	if d.run == nil {
		return false
	}
	select {
	case <-d.run.Done():
		return false
	default:
		return true
	}
}

// Process returns the daemon's process, to kill or to freeze it; nil before the first Start.
func (d *Daemon) Process() *proc.Process { return d.run }

// patient is how long a daemon may take to end in order. That of Debian 13 (libvirt 11.3) waits now and then for a
// thread of its own that never ends, and gives up by itself only after half a minute.
const patient = 10 * time.Second

// Stop ends the daemon, in order if it does so in time, and waits for its end. Its VMs run on, as they do in
// production.
func (d *Daemon) Stop(ctx context.Context) error {
	if !d.Running() {
		return nil
	}
	err := d.run.Signal(unix.SIGTERM)
	if err == nil {
		short, cancel := context.WithTimeout(ctx, patient)
		_, err = d.run.Wait(short)
		cancel()
		if err != nil && ctx.Err() == nil {
			err = d.run.Kill()
			<-d.run.Done()
		}
	}
	if err != nil {
		return fmt.Errorf("stop libvirtd of %s: %w", d.node.Name(), err)
	}
	return nil
}

// Restart stops and starts the daemon.
func (d *Daemon) Restart(ctx context.Context) error {
	if err := d.Stop(ctx); err != nil {
		return err
	}
	return d.Start(ctx)
}

// URI returns the libvirt URI by which a process outside the node reaches the daemon while the node is on.
func (d *Daemon) URI() (string, error) {
	path, err := d.node.Outside(socket)
	if err != nil {
		return "", err
	}
	return "qemu+unix:///system?socket=" + path, nil
}

// Virsh runs one command of virsh inside the node and returns what it printed. It needs a daemon that answers;
// ctx is its only limit.
func (d *Daemon) Virsh(ctx context.Context, args ...string) (string, error) {
	out, err := d.node.Run(ctx, "virsh", append([]string{"-q", "-c", "qemu:///system"}, args...)...)
	return strings.TrimSpace(string(out)), err
}
