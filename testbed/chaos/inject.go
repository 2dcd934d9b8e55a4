package chaos

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"duet/testbed/netns"
	"duet/testbed/testcluster"
)

// injection carries one Plan out. The maps are for the goroutine of Inject; said is also written by the
// commands.
type injection struct {
	*Pair
	plan     Plan            // what is carried out; Blackout changes what a power cut means
	off      map[string]bool // hosts that are switched off, by any fault
	still    map[string]bool // hosts that are frozen, or whose daemon is
	commands sync.WaitGroup  // operator's commands under way; heal waits for them
	mu       sync.Mutex
	said     []string        // what happened beside the plan
	stopped  map[string]bool // modules that may be stopped on purpose, which heal starts
}

// instant is the begin or the end of a fault. Of two at the same time the one of the earlier fault comes first.
type instant struct {
	at  time.Duration
	f   Fault
	end bool
}

// say notes something for the report.
func (s *injection) say(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.said = append(s.said, time.Now().Format("15:04:05.000 ")+fmt.Sprintf(format, args...))
}

// Inject carries the plan out and heals everything. It returns what it did, line by line; the error is that of
// the test bed, not of the cluster. Faults begin and end at their times as far as the test bed keeps up: an end
// that takes long (a boot) delays all that follows. When it returns nil nothing is broken any more, but the pair
// need not be whole yet: that is Judge's question. No command of the plan is under way when it returns, whatever it
// returns: it waits for them, a minute at most.
func (p *Pair) Inject(ctx context.Context, plan Plan) (did []string, err error) {
	s := &injection{Pair: p, plan: plan, off: map[string]bool{}, still: map[string]bool{}, stopped: map[string]bool{}}
	var all []instant
	for _, f := range plan.Faults {
		all = append(all, instant{f.At, f, false})
		if f.For != 0 {
			all = append(all, instant{f.At + f.For, f, true})
		}
	}
	slices.SortStableFunc(all, func(a, b instant) int { return int(a.at - b.at) })
	defer func() { did = s.over() }()
	begin := time.Now()
	for _, i := range all {
		select {
		case <-time.After(time.Until(begin.Add(i.at))):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		do, word := s.begin, "begin"
		if i.end {
			do, word = s.end, "end"
		}
		s.say("%s %s", word, i.f)
		if err := do(ctx, i.f); err != nil {
			return nil, fmt.Errorf("%s %s: %w", word, i.f, err)
		}
	}
	return nil, s.heal(ctx)
}

// over ends the injection: no command of it is under way when it returns what happened.
func (s *injection) over() []string {
	s.commands.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.said
}

// begin strikes. What cannot be struck because it is dead already is let be. A fault on a host that is off is
// left out, but for a power cut, which also takes what a dead host did not flush.
func (s *injection) begin(ctx context.Context, f Fault) error {
	h := s.Hosts[f.Host]
	if h != nil && s.off[f.Host] && f.Kind != PowerCut {
		return nil
	}
	if s.still[f.Host] && (f.Kind == StopDaemon || f.Kind == RestartVirt) {
		return nil // it would wait
	}
	switch f.Kind {
	case KillDaemon:
		return h.Duetd().Kill()
	case StopDaemon:
		return s.restart(ctx, h)
	case FreezeDaemon:
		s.still[f.Host] = true
		return h.Duetd().Freeze()
	case FreezeHost:
		s.still[f.Host] = true
		return h.Node.Freeze(ctx)
	case KillHost, SilenceHost, PowerCut, FailDisk:
		return s.switchOff(ctx, f, h)
	case KillGuest:
		return s.signal(f.Module, unix.SIGKILL)
	case FreezeGuest:
		return s.signal(f.Module, stopSignal)
	case RestartVirt:
		return s.tolerate(h.Libvirt.Restart(ctx))
	case KillWitness:
		return s.KillWitness(ctx)
	case CutHosts, CutWitness, Isolate, Lossy:
		return s.LAN.Cut(cuts(f)...)
	case Slow:
		return s.LAN.Slow(f.Host, f.Network, uint64(f.Amount)<<10)
	case FillDisk:
		// A standby whose disk is full stops, and waits for the operator who makes room.
		for _, m := range modules() {
			s.stopped[m] = true
		}
		return h.FillDisk(ctx)
	case Swap, StopStart:
		s.operate(ctx, f)
		return nil
	}
	return fmt.Errorf("unknown fault %q", f.Kind)
}

// end takes a fault back; one that something else has taken back already is let be. After an end that boots a
// host its libvirtd answers; its daemon is started and not waited for.
func (s *injection) end(ctx context.Context, f Fault) error {
	h := s.Hosts[f.Host]
	if h != nil && s.off[f.Host] {
		switch f.Kind {
		case KillHost, SilenceHost, PowerCut:
			return s.switchOn(ctx, h)
		case KillDaemon, FreezeDaemon, FreezeHost:
			return nil
		}
	}
	switch f.Kind {
	case KillDaemon:
		return s.revive(h)
	case FreezeDaemon, FreezeHost:
		s.still[f.Host] = false
		return h.Node.Thaw()
	case FailDisk:
		if err := h.PowerCut(ctx); err != nil {
			return err
		}
		s.off[f.Host] = true
		return s.switchOn(ctx, h)
	case FreezeGuest:
		return s.signal(f.Module, contSignal)
	case KillWitness:
		return s.StartWitness(ctx)
	case CutHosts, CutWitness, Isolate, Lossy:
		return s.LAN.Restore(cuts(f)...)
	case Slow:
		return s.LAN.Slow(f.Host, f.Network, 0)
	case FillDisk:
		return h.EmptyDisk()
	}
	return nil
}

// cuts are what a fault of the network does. It is the same for begin and end, so that Restore takes back
// exactly what Cut has added. Of the two directions OneWay keeps the one from the host.
func cuts(f Fault) []netns.Cut {
	var all []netns.Cut
	switch f.Kind {
	case CutHosts:
		all = netns.Between(f.Host, other(f.Host), f.Network)
		if f.OneWay {
			all = all[:1]
		}
	case CutWitness:
		all = netns.Between(f.Host, testcluster.Witness, "")
	case Isolate, SilenceHost:
		all = netns.Around(f.Host, "")
	case Lossy:
		all = netns.Between(testcluster.Alpha, testcluster.Beta, f.Network)
	}
	if f.Kind == Lossy {
		for i := range all {
			all[i].Percent = f.Amount
		}
	}
	return all
}

func other(host string) string {
	if host == testcluster.Alpha {
		return testcluster.Beta
	}
	return testcluster.Alpha
}

// switchOff ends a host. A disk is struck only while the other host has everything, or all of them are:
// otherwise a loss would be nobody's fault. KillHost leaves the kernel to close its connections in order;
// SilenceHost cuts the cables first, so that nobody hears it die, as with a real loss of power. PowerCut loses
// what was not flushed, FailDisk all access to it.
func (s *injection) switchOff(ctx context.Context, f Fault, h *testcluster.Host) error {
	switch f.Kind {
	case FailDisk:
		return h.FailDisk() // the host lives on with it
	case SilenceHost:
		if err := s.LAN.Cut(cuts(f)...); err != nil {
			return err
		}
		fallthrough
	case KillHost:
		s.off[f.Host] = true
		return h.Kill()
	}
	s.off[f.Host] = true
	err := h.PowerCut(ctx)
	if err == nil && s.plan.Blackout {
		err = s.darken()
	}
	return err
}

// switchOn: the network namespace is new, as a kernel that boots knows nothing of the connections before. The
// cuts of SilenceHost are taken back.
func (s *injection) switchOn(ctx context.Context, h *testcluster.Host) error {
	if !s.off[h.Name] {
		return nil
	}
	if err := errors.Join(s.LAN.Reset(h.Name), s.LAN.Restore(netns.Around(h.Name, "")...)); err != nil {
		return err
	}
	if err := h.Boot(ctx); err != nil {
		return err
	}
	s.off[h.Name], s.still[h.Name] = false, false
	return h.LaunchDuetd()
}

// The signals that stop a process and let it go on.
const (
	stopSignal = unix.SIGSTOP
	contSignal = unix.SIGCONT
)

// revive starts a dead daemon. It plays systemd's Restart=; only a daemon that has ended is started.
func (s *injection) revive(h *testcluster.Host) error {
	select {
	case <-h.Duetd().Done():
		return h.LaunchDuetd()
	default:
		return nil
	}
}

// restart ends the daemon in order; one that does not end in time is frozen, and left. A frozen host or a swap
// under way may keep it; then its end comes later, and heal starts it again if it has ended by then.
func (s *injection) restart(ctx context.Context, h *testcluster.Host) error {
	ctx, cancel := context.WithTimeout(ctx, 25*time.Second)
	defer cancel()
	if err := h.StopDuetd(ctx); err != nil {
		s.say("%s: %v", h.Name, err)
		return nil
	}
	return h.LaunchDuetd()
}

// signal strikes the QEMU of a module on every host that has one. A host that has none is left alone, and a
// process that has gone meanwhile is no error.
func (s *injection) signal(module string, sig unix.Signal) error {
	all, err := s.machines(module)
	for _, pids := range all {
		for _, pid := range pids {
			if e := unix.Kill(pid, sig); e != nil && !errors.Is(e, unix.ESRCH) {
				err = errors.Join(err, e)
			}
		}
	}
	return err
}

// machines are the QEMUs of a module by host. They are told apart by QEMU's own argument guest=NAME, which
// libvirt sets. Two hosts in the result are two VMs.
func (p *Pair) machines(module string) (map[string][]int, error) {
	found := map[string][]int{}
	for name, h := range p.Hosts {
		all, err := h.Node.Processes()
		if err != nil {
			return nil, err
		}
		for _, proc := range all {
			if strings.Contains(proc.Command, "guest="+module+",") {
				found[name] = append(found[name], proc.PID)
			}
		}
	}
	return found, nil
}

// operate gives an operator's command, which may fail as long as it harms nothing. The host that gets it follows
// from the plan, alpha or beta by the parity of the fault's time, so a seed gives it to the same one. It runs
// beside the faults for a minute at most.
func (s *injection) operate(ctx context.Context, f Fault) {
	name := testcluster.Alpha
	if s.off[name] || f.At%2 == 0 && !s.off[testcluster.Beta] {
		name = testcluster.Beta
	}
	h := s.Hosts[name]
	if f.Kind == StopStart {
		s.stopped[f.Module] = true
	}
	s.commands.Go(func() {
		ctx, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		verb := strings.TrimPrefix(string(f.Kind), "duet ")
		out, err := h.Duet(ctx, verb, f.Module)
		s.say("duet %s %s on %s: %s %v", verb, f.Module, name, out, err)
	})
}

// tolerate notes an error that a fault of the same plan explains.
func (s *injection) tolerate(err error) error {
	if err != nil {
		s.say("%v", err)
	}
	return nil
}

// heal repairs everything and waits for the operator's commands. Cuts go first, as what follows needs the
// network. Everything that may be whole already is asked all the same: each step is one that does nothing then.
func (s *injection) heal(ctx context.Context) error {
	s.say("heal everything")
	err := s.LAN.RestoreAll()
	for _, name := range []string{testcluster.Alpha, testcluster.Beta} {
		h := s.Hosts[name]
		if s.off[name] {
			err = errors.Join(err, s.switchOn(ctx, h))
			continue
		}
		err = errors.Join(err, h.Node.Thaw(), h.EmptyDisk(), h.Libvirt.Start(ctx), s.revive(h))
	}
	if s.Witness {
		err = errors.Join(err, s.StartWitness(ctx))
	}
	s.commands.Wait()
	for m := range s.stopped {
		err = errors.Join(err, s.start(ctx, m))
	}
	return err
}

// start gives the operator's command on both hosts: a module that is stopped on one of them only follows there
// again. It says which node, as a module that was stopped on purpose is started where the command is given;
// twenty seconds for both hosts together.
func (s *injection) start(ctx context.Context, module string) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	var err error
	for name, h := range s.Hosts {
		err = errors.Join(err, testcluster.Until(ctx, module+" is started on "+name, func() error {
			_, err := h.Duet(ctx, "start", module, "--node", name, "--no-wait")
			if err != nil && strings.Contains(err.Error(), "and "+name+" follows it") {
				return nil // it is started there, and refuses what may have been meant as a swap
			}
			return err
		}))
	}
	return s.tolerate(err) // Judge says what is wrong
}
