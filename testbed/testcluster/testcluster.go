// Package testcluster is a whole cluster on one computer: two hosts as namespaces, each with
// a libvirtd and a duetd of its own, and test VMs. Scenarios, the demo and the
// benchmarks of failover drive it; it knows nothing of what they prove.
//
// It needs root, Linux with namespaces, veth, nft and loop devices, libvirt and QEMU, and for the first run
// Debian's mirror for the guest's kernel. Everything is in Config.Dir and in namespaces of Config.Prefix;
// nothing of this computer's own libvirt or network is touched. Close ends all of it but the folder. If the
// process dies the hosts die with it; namespaces are left, which the next New of the same prefix removes, and
// mounts of Config.DiskMiB.
//
// Kinder than two computers: one kernel, one clock and one page cache serve both hosts, so a power cut loses
// only what is on a disk of Config.DiskMiB.
package testcluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"duet/console/api"
	"duet/testbed/guest"
	"duet/testbed/libvirtd"
	"duet/testbed/netns"
	"duet/testbed/proc"
)

// The hosts and networks of every cluster.
const (
	Alpha = "alpha"
	Beta  = "beta"
	// Witness is the third computer; nothing runs there before StartWitness.
	Witness = "witness"
	Front   = "hb1" // heartbeats; the gateway is here
	Back    = "hb2" // heartbeats and replication
	Guests  = "vms" // of the VMs, and the bridge of each host
)

// stateDir is where each host keeps Duet's state, as in production.
const stateDir = "/var/lib/duet"

// Config says where a cluster is made. All fields but Subnet are needed.
type Config struct {
	Prefix string // of the namespaces; one cluster at a time may have it
	Dir    string // everything the cluster keeps; its path must be short, for unix sockets
	Bin    string // directory with duet and duetd
	Cache  string // kernel of the test VM, capabilities of QEMU
	Module string // directory inside this Go module, to build the guest's program; "" is the working directory
	Subnet int    // third byte of the first network, 10.77.Subnet.0/24; the others have the next two
	// Args are added to the arguments of duetd.
	Args []string
	// DiskMiB gives each host a disk of its own of so many MiB for Duet's state and the
	// images of VMs, which can fail; 0 keeps both in folders of this computer.
	DiskMiB int
	// Apart keeps a console of each VM for each host, so that two guests at a time
	// cannot write into one: see ReadConsoleOf.
	Apart bool
}

// Cluster is a running cluster. Its methods are for one goroutine.
type Cluster struct {
	cfg   Config
	LAN   *netns.LAN
	Hosts map[string]*Host

	disks   []*disk
	third   *proc.Node    // the witness's computer; nil until it is started, then on until Close
	witness *proc.Process // of its last start
	Guest   guest.Files
}

// Host is one host of the cluster.
type Host struct {
	Name string
	// Bin is the directory with the host's duet and duetd: Config.Bin, or another version's.
	Bin     string
	Node    *proc.Node
	Libvirt *libvirtd.Daemon
	cluster *Cluster
	duetd   *proc.Process // of its last start, perhaps ended; nil before
	guard   *proc.Process // nil before the first start of duetd
	apps    *proc.Process // duetd apps; nil before the first start of duetd
	disk    *disk         // nil without Config.DiskMiB
	store   *proc.Store   // of duetd, in systemd's place
}

// New builds the network and the guest and boots both hosts with their libvirtd. On an error nothing is left
// running. It takes some seconds, more where QEMU is asked for its capabilities for the first time. The daemons
// are not started: see Form.
func New(ctx context.Context, cfg Config) (*Cluster, error) {
	l := &Cluster{cfg: cfg, Hosts: map[string]*Host{}}
	if err := l.build(ctx); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

func (l *Cluster) build(ctx context.Context) (err error) {
	files, err := guest.Build(ctx, filepath.Join(l.cfg.Cache, "guest"), l.cfg.Module)
	if err != nil {
		return err
	}
	if err := os.Chmod(l.cfg.Dir, 0o755); err != nil { // QEMU has a user of its own, as on every host
		return err
	}
	if l.Guest, err = files.CopyTo(filepath.Join(l.cfg.Dir, "boot")); err != nil {
		return err
	}
	subnet := func(third int) netip.Prefix {
		return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 77, byte(third), 0}), 24)
	}
	l.LAN, err = netns.New(l.cfg.Prefix, netns.Config{
		Nodes: []string{Alpha, Beta, Witness},
		Networks: []netns.Network{{Name: Front, Subnet: subnet(l.cfg.Subnet)},
			{Name: Back, Subnet: subnet(l.cfg.Subnet + 1)},
			{Name: Guests, Subnet: subnet(l.cfg.Subnet + 2), Guests: true}},
	})
	if err != nil {
		return err
	}
	for _, name := range []string{Alpha, Beta} {
		if err := l.addHost(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

func (l *Cluster) addHost(ctx context.Context, name string) error {
	conf := libvirtd.Config{Dir: filepath.Join(l.cfg.Dir, name), Capabilities: filepath.Join(l.cfg.Cache, "capabilities")}
	binds, err := libvirtd.Prepare(conf, name)
	if err != nil {
		return err
	}
	h := &Host{Name: name, Bin: l.cfg.Bin, cluster: l}
	own, err := h.folders(ctx)
	if err != nil {
		return fmt.Errorf("make directories of %s: %w", name, err)
	}
	h.Node = proc.New(proc.Config{Name: name, NetNS: l.LAN.Path(name), Binds: append(binds, own...), Hosts: l.LAN.Hosts()})
	h.Libvirt = libvirtd.New(h.Node, conf)
	if h.store, err = proc.NewStore(filepath.Join(conf.Dir, "notify")); err != nil {
		return err
	}
	l.Hosts[name] = h
	return h.Boot(ctx)
}

// folders makes what the host keeps while it is off, besides libvirt's.
func (h *Host) folders(ctx context.Context) ([]proc.Bind, error) {
	l, own := h.cluster, filepath.Join(h.cluster.cfg.Dir, h.Name)
	binds := []proc.Bind{{Source: filepath.Join(own, "duet"), Target: stateDir}}
	if l.cfg.DiskMiB != 0 {
		d, err := newDisk(ctx, filepath.Join(own, "disk"), l.cfg.DiskMiB)
		if err != nil {
			return nil, err
		}
		l.disks = append(l.disks, d)
		h.disk = d
		binds = []proc.Bind{{Source: filepath.Join(d.dir, "duet"), Target: stateDir}}
	}
	if l.cfg.Apart {
		binds = append(binds, proc.Bind{Source: filepath.Join(own, "console"), Target: filepath.Join(l.cfg.Dir, "console")})
	}
	for _, b := range append(binds, proc.Bind{Source: filepath.Join(l.cfg.Dir, "console"), Target: stateDir}) {
		for _, dir := range []string{b.Source, b.Target} {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return nil, err
			}
		}
	}
	return binds, nil
}

// Close ends everything and removes the network; the directory stays. Processes go before disks and network, as
// they use both. A host whose disk hangs (HangDisk) has to be thawed before: its writers cannot be killed until
// then.
func (l *Cluster) Close() error {
	var errs []error
	for _, h := range l.Hosts {
		errs = append(errs, h.Node.Kill(), h.store.Close())
	}
	if l.third != nil {
		errs = append(errs, l.third.Kill())
	}
	for _, d := range l.disks {
		errs = append(errs, d.close())
	}
	if l.LAN != nil {
		errs = append(errs, l.LAN.Close())
	}
	return errors.Join(errs...)
}

// Form makes the cluster: init on alpha, join on beta, both daemons running.
func (l *Cluster) Form(ctx context.Context, args ...string) error {
	a := l.Hosts[Alpha]
	init := append([]string{"cluster", "init", "--name", "lab", "--node", Alpha, "--addr", l.addrs(Alpha)}, args...)
	if _, err := a.Duet(ctx, init...); err != nil {
		return err
	}
	if err := a.StartDuetd(ctx); err != nil {
		return err
	}
	return l.Join(ctx)
}

// Join makes beta a member of alpha's cluster and starts its duetd.
func (l *Cluster) Join(ctx context.Context) error {
	return l.enter(ctx, "join", "--node", Beta, "--addr", l.addrs(Beta))
}

// Rejoin brings beta back that was removed from alpha's cluster and starts its duetd.
func (l *Cluster) Rejoin(ctx context.Context) error { return l.enter(ctx, "rejoin", "--yes") }

func (l *Cluster) enter(ctx context.Context, command string, args ...string) error {
	a, b := l.Hosts[Alpha], l.Hosts[Beta]
	out, err := a.Duet(ctx, "cluster", "token", "--json")
	if err != nil {
		return err
	}
	var token api.Token
	if err := json.Unmarshal([]byte(out), &token); err != nil {
		return fmt.Errorf("read token: %w", err)
	}
	at := l.LAN.Addr(Alpha, Front).String()
	if _, err := b.Duet(ctx, append([]string{"cluster", command, at, "--token", token.Token}, args...)...); err != nil {
		return err
	}
	return b.StartDuetd(ctx)
}

func (l *Cluster) addrs(node string) string {
	return fmt.Sprintf("%s=%s,%s=%s", Front, l.LAN.Addr(node, Front), Back, l.LAN.Addr(node, Back))
}

// Peer is the other host.
func (l *Cluster) Peer(h *Host) *Host {
	if h.Name == Alpha {
		return l.Hosts[Beta]
	}
	return l.Hosts[Alpha]
}

// Console is the file to which the serial console of a VM is appended, wherever it runs.
func (l *Cluster) Console(vm string) string { return filepath.Join(l.cfg.Dir, "console", vm+".log") }

// ReadConsole parses the console of a VM.
func (l *Cluster) ReadConsole(vm string) (guest.Log, error) { return readConsole(l.Console(vm)) }

// ReadConsoleOf parses what a VM said on one host of a cluster whose consoles are apart.
func (l *Cluster) ReadConsoleOf(host, vm string) (guest.Log, error) {
	return readConsole(filepath.Join(l.cfg.Dir, host, "console", vm+".log"))
}

func readConsole(path string) (guest.Log, error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return guest.Log{}, nil
	}
	if err != nil {
		return guest.Log{}, err
	}
	defer f.Close()
	return guest.ParseConsole(f)
}

// Boot switches the host on and starts its libvirtd. The store of file descriptors is emptied and the boot id is
// a new one, so the daemon takes it for a computer that lost power. The daemon is not started. A host that is on
// keeps its processes, and gets a new boot id all the same.
func (h *Host) Boot(ctx context.Context) error {
	if err := h.Node.Boot(); err != nil {
		return err
	}
	h.store.Clear() // it was systemd's, which is new too
	// All hosts share one kernel, which runs on; this tells the daemon that its own did not.
	const newKernel = "cat /proc/sys/kernel/random/uuid >/run/boot_id &&" +
		" mount --bind /run/boot_id /proc/sys/kernel/random/boot_id"
	if _, err := h.Node.Run(ctx, "sh", "-c", newKernel); err != nil {
		return err
	}
	return h.Libvirt.Start(ctx)
}

// Kill ends every process of the host at once, as a power cut would. What was written is still there, as the
// page cache is this computer's: see PowerCut. The others see its connections closed.
func (h *Host) Kill() error { return h.Node.Kill() }

// LaunchDuetd starts the daemon and does not wait for it. What runs beside it is started first unless it runs.
func (h *Host) LaunchDuetd() error {
	if err := h.LaunchGuard(); err != nil {
		return err
	}
	if err := h.LaunchApps(); err != nil {
		return err
	}
	return h.LaunchDuetdAlone()
}

// LaunchDuetdAlone starts the daemon without a look at its guard.
func (h *Host) LaunchDuetdAlone() error {
	p, err := h.Node.Start(proc.Spec{
		Path: filepath.Join(h.Bin, "duetd"), Args: append([]string{"-log", "debug"}, h.cluster.cfg.Args...), Output: h.Log(),
		Env: []string{"PATH=" + h.tools() + ":" + os.Getenv("PATH")}, Store: h.store,
	})
	if err == nil {
		h.duetd = p
	}
	return err
}

// tools is a directory of programs that the daemon finds before those of this computer.
func (h *Host) tools() string { return filepath.Join(h.cluster.cfg.Dir, h.Name, "tools") }

// ShutDown ends the daemon as systemd does when the whole host goes down, then the host. The daemon asks
// systemctl whether the host goes down; the one in tools says yes.
func (h *Host) ShutDown(ctx context.Context) error {
	if err := os.MkdirAll(h.tools(), 0o700); err != nil {
		return err
	}
	systemctl := filepath.Join(h.tools(), "systemctl")
	if err := os.WriteFile(systemctl, []byte("#!/bin/sh\necho stopping\nexit 1\n"), 0o700); err != nil {
		return err
	}
	err := h.StopDuetd(ctx)
	return errors.Join(err, os.Remove(systemctl), h.Kill())
}

// StartDuetd starts the daemon and waits until it answers. It answers before it has met its peer: see Is and
// Whole for that.
func (h *Host) StartDuetd(ctx context.Context) error {
	if err := h.LaunchDuetd(); err != nil {
		return err
	}
	p := h.duetd
	return Until(ctx, fmt.Sprintf("duetd answers on %s (see %s)", h.Name, h.Log()), func() error {
		select {
		case <-p.Done():
			return fmt.Errorf("it has ended")
		default:
		}
		_, err := h.Status(ctx)
		return err
	})
}

// Log is the file of the daemon's own messages.
func (h *Host) Log() string { return filepath.Join(h.cluster.cfg.Dir, h.Name, "duetd.log") }

// Duetd is the daemon's process. nil before the first start.
func (h *Host) Duetd() *proc.Process { return h.duetd }

// Kept names the sockets of volumes that systemd's stand-in keeps for the daemon.
func (h *Host) Kept() []string { return h.store.Names() }

// StopDuetd ends the daemon in order and waits for it. It fails only with ctx: how the daemon ended is not
// looked at.
func (h *Host) StopDuetd(ctx context.Context) error {
	if err := h.duetd.Signal(unix.SIGTERM); err != nil {
		return err
	}
	_, err := h.duetd.Wait(ctx)
	return err
}

// Duet runs the command line on the host and returns what it printed. An exit code other than 0 is an error with
// what it said on standard error.
func (h *Host) Duet(ctx context.Context, args ...string) (string, error) {
	out, err := h.Node.Run(ctx, filepath.Join(h.Bin, "duet"), args...)
	return strings.TrimSpace(string(out)), err
}

// Status asks the host's daemon.
func (h *Host) Status(ctx context.Context) (api.Status, error) {
	var s api.Status
	out, err := h.Duet(ctx, "status", "--json") // its exit code says how the cluster stands
	if json.Unmarshal([]byte(out), &s) == nil && s.Self != "" {
		return s, nil
	}
	return s, errors.Join(err, fmt.Errorf("no status: %q", out))
}

// On asks the host's daemon how it stands itself with a module.
func (h *Host) On(ctx context.Context, module string) (api.NodeState, error) {
	s, err := h.Status(ctx)
	if err != nil {
		return api.NodeState{}, err
	}
	m, err := s.Module(module)
	if err != nil {
		return api.NodeState{}, err
	}
	return m.On(h.Name)
}

// Is waits until the module has the role and is Ready on this host.
func (h *Host) Is(ctx context.Context, module, role string) error {
	return Until(ctx, fmt.Sprintf("%s is %s (Ready) on %s", module, role, h.Name), func() error {
		st, err := h.On(ctx, module)
		if err != nil {
			return err
		}
		if st.Role != role || st.Status != "Ready" {
			return fmt.Errorf("it is %s (%s): %s", st.Role, st.Status, st.Why)
		}
		return nil
	})
}

// Whole waits until the module runs on this host with every volume in step with the other's. PRIM (Ready) alone
// is not that: it is also while the other host gets what it missed. Only this host's own account is asked.
func (h *Host) Whole(ctx context.Context, module string) error {
	if err := h.Is(ctx, module, "PRIM"); err != nil {
		return err
	}
	return Until(ctx, fmt.Sprintf("both copies of %s are complete", module), func() error {
		st, err := h.On(ctx, module)
		if err != nil {
			return err
		}
		for _, v := range st.Volumes {
			if v.State != "connected" {
				return fmt.Errorf("%s is %s", v.Name, v.State)
			}
		}
		return nil
	})
}

// VM describes a test VM: a guest.Domain without what the cluster fills in.
type VM struct {
	Name  string
	Size  int64 // of its disk in bytes
	Mode  string
	Rate  int
	Flush int
	QCOW2 bool // the disk is a qcow2 image, not a raw one
	NIC   int  // last byte of its address in the network of the guests; 0: it has no card
}

// nic is the network card of a guest.
func (l *Cluster) nic(last int) *guest.NIC {
	if last == 0 {
		return nil
	}
	return &guest.NIC{Bridge: Guests, Address: netip.PrefixFrom(l.Address(last), 24), MAC: MAC(last)}
}

// Address is that of a guest in its network.
func (l *Cluster) Address(last int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, 77, byte(l.cfg.Subnet + 2), byte(last)})
}

// MAC is that of the card of a guest.
func MAC(last int) string { return fmt.Sprintf("52:54:00:77:00:%02x", last) }

// Define makes the disk of a VM and defines it on this host.
func (h *Host) Define(ctx context.Context, vm VM) error {
	format := "raw"
	if vm.QCOW2 {
		format = "qcow2"
	}
	image, err := h.image(ctx, vm.Name, format, vm.Size)
	if err != nil {
		return err
	}
	text, err := guest.Domain{Name: vm.Name, Files: h.cluster.Guest, Disks: []guest.Disk{{File: image}},
		Console: h.cluster.Console(vm.Name), Network: h.cluster.nic(vm.NIC),
		Mode: vm.Mode, Rate: vm.Rate, Flush: vm.Flush}.XML()
	if err != nil {
		return err
	}
	text = strings.Replace(text, "type='raw' cache=", "type='"+format+"' cache=", 1)
	return h.define(ctx, vm.Name, text)
}

// Until waits until check returns nil; its last error says what was missing. It checks at once and then twenty
// times a second; check bounds itself.
func Until(ctx context.Context, what string, check func() error) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	var last error
	for {
		err := check()
		if err == nil {
			return nil
		}
		if last == nil || ctx.Err() == nil { // else it may only say that there was no time to ask
			last = err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("waited in vain: %s: %w", what, last)
		}
	}
}

// Protect defines a VM on this host, protects it so that its peer may take over when a ping target answers,
// starts it and waits until both copies are in step. Both hosts need a running duetd.
func (h *Host) Protect(ctx context.Context, vm VM) error {
	if err := h.Define(ctx, vm); err != nil {
		return err
	}
	if _, err := h.Duet(ctx, "vm", "protect", vm.Name, "--arbitration", "available", "--primary", h.Name); err != nil {
		return err
	}
	if _, err := h.Duet(ctx, "start", vm.Name); err != nil {
		return err
	}
	if err := h.Is(ctx, vm.Name, "PRIM"); err != nil {
		return err
	}
	return h.cluster.Peer(h).Is(ctx, vm.Name, "SECOND")
}

// Bin is the directory with the programs.
func (l *Cluster) Bin() string { return l.cfg.Bin }
