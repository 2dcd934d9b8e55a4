package chaos

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"duet/console/api"
	"duet/testbed/testcluster"
)

// Pair is a cluster under test. Its methods are for one goroutine.
type Pair struct {
	*testcluster.Cluster
	Witness bool               // arbitration safe with a witness; otherwise available with a ping target
	dir     string             // of the cluster
	writers map[string]*Writer // by module: Left and Right
	// dark are boots of the Linux guest that a blackout ended: only what they flushed
	// had to survive.
	dark map[string]bool
}

// Build makes the cluster, protects its modules and waits until they are in step. The cluster of cfg gets disks
// and consoles of each host's own. On an error nothing is left. 160 MiB of disk for each host hold the images,
// the daemon's state and what FillDisk takes.
func Build(ctx context.Context, cfg testcluster.Config, witness bool) (*Pair, error) {
	cfg.DiskMiB, cfg.Apart = 160, true
	cfg.Args = append(cfg.Args, "-admit-root") // the writers are no QEMU
	l, err := testcluster.New(ctx, cfg)
	if err != nil {
		return nil, err
	}
	p := &Pair{Cluster: l, Witness: witness, dir: cfg.Dir, writers: map[string]*Writer{}, dark: map[string]bool{}}
	if err := p.build(ctx); err != nil {
		return nil, errors.Join(err, p.Dump(ctx), p.Close())
	}
	return p, nil
}

// Dump ends the daemons and has them write their goroutines into their logs. It is for the report of a test that
// has failed: SIGQUIT makes Go write all stacks. It does not need ctx to be alive. The pair is of no use
// afterwards.
func (p *Pair) Dump(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	var err error
	for _, h := range p.Hosts {
		if d := h.Duetd(); d != nil {
			err = errors.Join(err, d.Signal(unix.SIGQUIT))
			_, e := d.Wait(ctx)
			err = errors.Join(err, e)
		}
	}
	return err
}

// Close ends the writers and the cluster. Writers first: their sockets lie in the hosts.
func (p *Pair) Close() error {
	for _, w := range p.writers {
		w.Close()
	}
	return p.Cluster.Close()
}

// build: the writers are made last, with a context that outlives the caller's: only Close ends them.
func (p *Pair) build(ctx context.Context) error {
	if err := p.Form(ctx); err != nil {
		return err
	}
	if p.Witness {
		if err := errors.Join(p.StartWitness(ctx), p.AddWitness(ctx)); err != nil {
			return err
		}
	}
	a, b := p.Hosts[testcluster.Alpha], p.Hosts[testcluster.Beta]
	if err := a.Define(ctx, testcluster.VM{Name: Records, Size: recordsSize, Rate: 100, Flush: 1}); err != nil {
		return err
	}
	const registers = firstByte + pages*page
	if err := errors.Join(a.DefineTiny(ctx, Left, registers), b.DefineTiny(ctx, Right, registers)); err != nil {
		return err
	}
	for module, h := range map[string]*testcluster.Host{Records: a, Left: a, Right: b} {
		if err := p.protect(ctx, h, module); err != nil {
			return err
		}
	}
	if err := p.Healthy(ctx); err != nil {
		return err
	}
	for _, m := range []string{Left, Right} {
		p.writers[m] = NewWriter(context.WithoutCancel(ctx), m, []string{testcluster.Alpha, testcluster.Beta},
			func(host string) (string, error) {
				return p.Hosts[host].Node.Outside("/run/duet/volumes/" + m + "-vda.sock")
			})
	}
	return nil
}

// protect makes a VM a module that may be restarted any number of times. A schedule restarts a VM more often
// than the default policy allows within a day, which would end in a module that has given up and not in a fault.
func (p *Pair) protect(ctx context.Context, h *testcluster.Host, module string) error {
	arbitration := "available"
	if p.Witness {
		arbitration = "safe"
	}
	if _, err := h.Duet(ctx, "vm", "protect", module, "--arbitration", arbitration, "--primary", h.Name); err != nil {
		return err
	}
	text, err := h.Duet(ctx, "config", "show", module)
	if err != nil {
		return err
	}
	path := filepath.Join(p.dir, module+".yaml")
	if err := os.WriteFile(path, []byte(strings.Replace(text, "max: 3", "max: 1000", 1)), 0o600); err != nil {
		return err
	}
	if _, err := h.Duet(ctx, "config", "apply", path); err != nil {
		return err
	}
	if err := p.Peer(h).Configured(ctx, module, "max: 1000"); err != nil {
		return err
	}
	_, err = h.Duet(ctx, "start", module)
	return err
}

// recordsSize is the disk of the Linux guest: 2048 records, then it begins anew. So the ring is written over
// within a minute at a hundred records a second: losses have to be found at once, by the records that are left.
const recordsSize = 8 << 20

// modules of the pair.
func modules() []string { return []string{Records, Left, Right} }

// state is how a module stands, by each host's own account. Each host is asked itself, as one that is asked of
// the other may tell old news.
func (p *Pair) state(ctx context.Context, module string) (map[string]api.NodeState, error) {
	all := map[string]api.NodeState{}
	for name, h := range p.Hosts {
		st, err := h.On(ctx, module)
		if err != nil {
			return nil, err
		}
		all[name] = st
	}
	return all, nil
}

// inStep tells the primary of a module that is PRIM on one host and SECOND on the other. Anything else is an
// error that says how both stand, and why.
func (p *Pair) inStep(ctx context.Context, module string) (primary *testcluster.Host, err error) {
	all, err := p.state(ctx, module)
	if err != nil {
		return nil, err
	}
	var roles, says []string
	for _, name := range []string{testcluster.Alpha, testcluster.Beta} {
		st := all[name]
		if st.Role == "PRIM" {
			primary = p.Hosts[name]
		}
		roles = append(roles, st.Role+"/"+st.Status)
		says = append(says, fmt.Sprintf("%s is %s (%s): %s", name, st.Role, st.Status, st.Why))
	}
	slices.Sort(roles)
	if !slices.Equal(roles, []string{"PRIM/Ready", "SECOND/Ready"}) {
		return nil, fmt.Errorf("%s: %s", module, strings.Join(says, "; "))
	}
	return primary, nil
}

// Healthy waits until every module is PRIM and SECOND and its writer is answered. What was
// lost in a fault that has just ended may show only then: it is looked at once more.
func (p *Pair) Healthy(ctx context.Context) error {
	return testcluster.Until(ctx, "both copies are in step and stay so", func() error {
		if err := p.allInStep(ctx); err != nil {
			return err
		}
		return errors.Join(p.answered(ctx), p.allInStep(ctx))
	})
}

func (p *Pair) allInStep(ctx context.Context) error {
	for _, m := range modules() {
		if _, err := p.inStep(ctx, m); err != nil {
			return err
		}
	}
	return nil
}

// answered waits until the guest and the writers get on. Five writes more of each, so that what was answered
// from before the fault's end does not count.
func (p *Pair) answered(ctx context.Context) error {
	const more = 5
	acked, err := p.acked()
	if err != nil {
		return err
	}
	err = testcluster.Until(ctx, Records+" gets on", func() error {
		now, err := p.acked()
		if err == nil && now < acked+more {
			err = fmt.Errorf("%d records, %d before", now, acked)
		}
		return err
	})
	for _, w := range p.writers {
		before := w.Acked()
		err = errors.Join(err, testcluster.Until(ctx, w.Volume+" gets on", func() error {
			if n := w.Acked(); n < before+more {
				return fmt.Errorf("%d writes, %d before", n, before)
			}
			return nil
		}))
	}
	return err
}

// acked counts the records that any boot of the Linux guest on any host was promised.
func (p *Pair) acked() (n int, err error) {
	for name := range p.Hosts {
		log, err := p.ReadConsoleOf(name, Records)
		if err != nil {
			return 0, err
		}
		for _, b := range log.Boots {
			n += len(b.Acks)
		}
	}
	return n, nil
}

// healTime bounds how long a pair may take to be whole again after everything that was broken works: detection,
// boots of emulated guests and resync on a busy computer. It bounds Judge as a whole.
const healTime = 90 * time.Second
