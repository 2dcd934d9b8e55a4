package chaos

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"duet/testbed/testcluster"
)

// Kind is what a Fault does.
type Kind string

// The kinds of faults. Those with an end last for Fault.For.
const (
	KillDaemon   Kind = "kill -9 duetd"    // and started again at the end
	StopDaemon   Kind = "restart duetd"    // in order
	FreezeDaemon Kind = "freeze duetd"     // SIGSTOP, SIGCONT
	KillHost     Kind = "kill the host"    // all its processes; its sockets are closed
	SilenceHost  Kind = "silence the host" // the same, and the network sees nothing of it
	FreezeHost   Kind = "freeze the host"  // SIGSTOP of all its processes
	KillGuest    Kind = "kill -9 QEMU"     // of one module, where it runs
	FreezeGuest  Kind = "freeze QEMU"      // of one module, where it runs
	RestartVirt  Kind = "restart libvirtd" // in order; VMs run on
	KillWitness  Kind = "kill -9 witness"  // and started again at the end, with what it remembers
	CutHosts     Kind = "cut the hosts"    // from each other: one network or all, one direction or both
	CutWitness   Kind = "cut the witness"  // from one host
	Isolate      Kind = "isolate the host" // from everything
	Lossy        Kind = "lose frames"      // some percent, in one network
	Slow         Kind = "slow link"        // some bytes per second to one host, in one network
	FillDisk     Kind = "fill the disk"    // of one host: images and the daemon's state
	Swap         Kind = "duet swap"        // of one module
	StopStart    Kind = "duet stop"        // of one module, and duet start
	PowerCut     Kind = "power cut"        // the host dies and what it did not flush is gone
	FailDisk     Kind = "disk failure"     // every access fails; then the host is switched off and on
)

// Fault is one fault of a Plan.
type Fault struct {
	Kind    Kind
	At, For time.Duration // since the beginning of the plan; For is 0 where the fault has no end
	Host    string        // that is struck; "" where a module, the network or the witness is
	Module  string        // "" where a host is struck
	Network string        // "" = all
	OneWay  bool          // of CutHosts: only frames from Host are lost
	Amount  int           // percent of Lossy, KiB per second of Slow
}

// String is one line.
func (f Fault) String() string {
	s := fmt.Sprintf("%5dms  %s", f.At.Milliseconds(), f.Kind)
	for _, x := range []string{f.Host, f.Module, f.Network} {
		if x != "" {
			s += " " + x
		}
	}
	if f.OneWay {
		s += " (one direction)"
	}
	if f.Amount != 0 {
		s += fmt.Sprintf(" %d", f.Amount)
	}
	if f.For != 0 {
		s += fmt.Sprintf(", for %dms", f.For.Milliseconds())
	}
	return s
}

// Plan is what happens to a pair. Make and a seed give the same plan on every computer; a change of weights or
// of the order of draws changes all of them.
type Plan struct {
	Seed uint64
	// Blackout says that all hosts lose their power: only what was flushed must survive.
	Blackout bool
	Faults   []Fault // ordered by At
}

// String is the plan as text.
func (p Plan) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "schedule %d\n", p.Seed)
	for _, f := range p.Faults {
		fmt.Fprintf(&b, "  %s\n", f)
	}
	return b.String()
}

// Modules of every pair: a guest that writes records, and two that leave their disks
// to a Writer, one at home on each host.
const (
	Records = "web01"
	Left    = "reg01"
	Right   = "reg02"
)

// window is the time in which faults begin. A fault that begins last may end six seconds later, and healTime is
// counted from the end of all.
const window = 5 * time.Second

// Make makes the plan of a seed. In a pair without a witness, whose modules go on when a ping target answers,
// the hosts are never cut off from each other wholly. Eight of a hundred plans are blackouts, seven cut the
// power of one host, five fail a disk, the rest mix two to five faults. No disk loses data in a mix: with
// another fault at the same time that could be the second failure, which nothing covers.
func Make(seed uint64, witness bool) Plan {
	d := dice{rand.New(rand.NewPCG(seed, 0x0d0e)), witness}
	p := Plan{Seed: seed}
	switch x := d.IntN(100); {
	case x < 8:
		p.Faults, p.Blackout = d.blackout(), true
	case x < 15:
		p.Faults = d.power(PowerCut)
	case x < 20:
		p.Faults = d.power(FailDisk)
	default:
		p.Faults = d.mixed()
	}
	slices.SortStableFunc(p.Faults, func(a, b Fault) int { return int(a.At - b.At) })
	return p
}

type dice struct {
	*rand.Rand
	witness bool
}

func (d dice) host() string    { return []string{testcluster.Alpha, testcluster.Beta}[d.IntN(2)] }
func (d dice) network() string { return []string{testcluster.Front, testcluster.Back}[d.IntN(2)] }
func (d dice) module() string  { return []string{Records, Left, Right}[d.IntN(3)] }
func (d dice) between(from, to time.Duration) time.Duration {
	return from + time.Duration(d.Int64N(int64(to-from)))
}

// length is short as often as long: below and above the time of detection.
func (d dice) length() time.Duration {
	if d.IntN(2) == 0 {
		return d.between(50*time.Millisecond, 1500*time.Millisecond)
	}
	return d.between(1500*time.Millisecond, 6*time.Second)
}

// blackout cuts the power of both hosts almost at the same time.
func (d dice) blackout() []Fault {
	first := d.between(500*time.Millisecond, 2*time.Second)
	second := first
	if d.IntN(2) == 0 {
		second += d.between(0, time.Second)
	}
	return []Fault{
		{Kind: PowerCut, Host: testcluster.Alpha, At: first, For: d.length()},
		{Kind: PowerCut, Host: testcluster.Beta, At: second, For: d.length()},
	}
}

// power strikes the disk of one host of a pair that is in step: the other has everything. What else happens
// keeps the other's data. FailDisk and PowerCut leave the other host with the only good copy, so neither its
// host nor its network is struck; its daemon may be, as its page cache survives that.
func (d dice) power(k Kind) []Fault {
	host := d.host()
	all := []Fault{{Kind: k, Host: host, At: d.between(200*time.Millisecond, time.Second),
		For: d.between(time.Second, 6*time.Second)}}
	other := testcluster.Alpha
	if host == other {
		other = testcluster.Beta
	}
	switch d.IntN(3) {
	case 0:
		all = append(all, Fault{Kind: KillDaemon, Host: other, At: d.between(all[0].At, window), For: d.length()})
	case 1:
		all = append(all, Fault{Kind: KillGuest, Module: d.module(), At: d.between(all[0].At, window)})
	}
	return all
}

// mixed are a few faults that may overlap. Without a witness all faults of the network strike the same network,
// so that the other one always carries: Isolate becomes KillHost, and what would strike the witness a
// KillDaemon.
func (d dice) mixed() []Fault {
	network := d.network() // the one that suffers in a pair without a witness
	var all []Fault
	for range 2 + d.IntN(4) {
		f := Fault{At: d.between(0, window), For: d.length()}
		d.choose(&f)
		if !d.witness {
			switch f.Kind {
			case CutHosts, Lossy, Slow:
				f.Network = network
			case Isolate:
				f.Kind = KillHost
			case KillWitness, CutWitness:
				f.Kind, f.Host, f.Network, f.OneWay = KillDaemon, d.host(), "", false
			}
		}
		all = append(all, f)
	}
	return all
}

// kinds are those of mixed with their weights. The order is part of what a seed means.
func (d dice) kind() Kind {
	weights := []struct {
		kind Kind
		n    int
	}{
		{KillDaemon, 12}, {StopDaemon, 5}, {FreezeDaemon, 10}, {KillHost, 6}, {SilenceHost, 7}, {FreezeHost, 7},
		{KillGuest, 5}, {FreezeGuest, 3}, {RestartVirt, 3}, {KillWitness, 4}, {CutHosts, 16}, {CutWitness, 6},
		{Isolate, 6}, {Lossy, 5}, {Slow, 4},
		{FillDisk, 3}, {Swap, 8}, {StopStart, 3},
	}
	total := 0
	for _, w := range weights {
		total += w.n
	}
	x := d.IntN(total)
	for _, w := range weights {
		if x -= w.n; x < 0 {
			return w.kind
		}
	}
	panic("unreachable")
}

// choose fills in what the fault strikes. What lasts no time in itself has no For: a restart, a kill of QEMU, a
// swap.
func (d dice) choose(f *Fault) {
	f.Kind = d.kind()
	switch f.Kind {
	case KillDaemon, StopDaemon, FreezeDaemon, KillHost, SilenceHost, FreezeHost, Isolate, FillDisk, RestartVirt:
		f.Host = d.host()
	case KillGuest, FreezeGuest, Swap, StopStart:
		f.Module = d.module()
	case CutHosts:
		f.Host, f.OneWay = d.host(), d.IntN(3) == 0
		if d.IntN(2) == 0 {
			f.Network = d.network()
		}
	case CutWitness:
		f.Host = d.host()
	case Lossy:
		f.Network, f.Amount = d.network(), []int{5, 20, 50}[d.IntN(3)]
	case Slow:
		f.Host, f.Network, f.Amount = d.host(), d.network(), []int{20, 200, 2000}[d.IntN(3)]
	}
	switch f.Kind {
	case StopDaemon, KillGuest, RestartVirt, Swap:
		f.For = 0
	}
}
