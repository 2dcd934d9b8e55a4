//go:build linux && cgo && libvirt_dlopen

package libvirt

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"libvirt.org/go/libvirt"

	"duet/vmmanager"
)

const (
	// dryTime is the limit of a dry run: libvirt asks QEMU first for what it can do where it has not
	// yet, and anew each time where /dev/kvm is root's alone. That takes 10 s on a busy host and
	// over a minute on one that is an emulated machine itself.
	dryTime = 3 * time.Minute
	// dryGood is how long a dry run that went well counts for the same definition and QEMU,
	// dryBad how long one that did not: an admin may have installed what was missing.
	dryGood = time.Hour
	dryBad  = 15 * time.Second
)

// trial keeps what definitions were judged by. It is kept in memory only: after a restart of the daemon each
// definition is tried out once more.
type trial struct {
	looking chan struct{} // holds a token while the host is looked at
	host    *host         // what the last look found
	looked  time.Time     // when that look began

	turn chan struct{}     // holds a token during a dry run: each keeps one of libvirtd's few workers busy
	dry  map[string]dryRun // the last of each VM, by name, while it counts
}

// dryRun is what libvirt said to a definition.
type dryRun struct {
	of    string              // the definition and the QEMU
	until time.Time           // after that it is tried out again
	found []vmmanager.Finding // none: it would start
}

func newTrial() *trial {
	return &trial{looking: make(chan struct{}, 1), turn: make(chan struct{}, 1), dry: map[string]dryRun{}}
}

// keep stores a dry run, and drops those that count no more: VMs come and go. It has the turn.
func (t *trial) keep(vm string, run dryRun) {
	maps.DeleteFunc(t.dry, func(_ string, old dryRun) bool { return time.Now().After(old.until) })
	t.dry[vm] = run
}

// Judge tells all that would keep a VM of that definition from running on this host. A
// clash of UUIDs is told alone and at once; otherwise a dry run by libvirt follows the
// look at the host. An error is no judgement, as where libvirt does not answer or ctx has ended. A dry run
// takes dryTime at most, and waits for its turn until ctx ends. It goes on when ctx ends: who asks again has the
// answer then.
func (h *Hypervisor) Judge(ctx context.Context, def vmmanager.Definition) ([]vmmanager.Finding, error) {
	domain, err := parseXML(def.Text)
	if err != nil {
		return nil, fmt.Errorf("judge %s: %w", def.Name, err)
	}
	here, err := h.look(ctx)
	if err != nil {
		return nil, fmt.Errorf("judge %s: %w", def.Name, err)
	}
	all := judge(needs(domain), here)
	if slices.ContainsFunc(all, func(f vmmanager.Finding) bool { return f.Code == "uuid-taken" }) {
		return all, nil
	}
	dry, err := h.dryRun(ctx, def, domain.child("devices", "emulator"))
	if err != nil {
		return nil, fmt.Errorf("judge %s: %w", def.Name, err)
	}
	return vmmanager.Worst(append(all, dry...)), nil
}

// look reads what this host has. Those who ask while it is being looked at share the next
// look: nobody gets one that began before he asked. A look that fails is made anew by the next one who waits.
func (h *Hypervisor) look(ctx context.Context) (*host, error) {
	t, asked := h.trial, time.Now()
	select {
	case t.looking <- struct{}{}:
		defer func() { <-t.looking }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if t.looked.After(asked) {
		return t.host, nil
	}
	began := time.Now()
	now, err := ask(ctx, h, probeTime, lookAtHost)
	if err != nil {
		return nil, err
	}
	// On a connection of its own, when a definition asks for it: the one of the look is closed by then.
	now.hasVolume = func(pool, volume string) bool {
		has, err := ask(ctx, h, probeTime, func(conn *libvirt.Connect) (bool, error) {
			return hasVolume(conn, pool, volume), nil
		})
		return has || err != nil
	}
	t.host, t.looked = now, began
	return now, nil
}

// lookAtHost reads what libvirt and the computer itself know of it. Drivers are asked one after the other on one
// connection. A VM or network that goes meanwhile is left out.
func lookAtHost(conn *libvirt.Connect) (*host, error) {
	h := localHost()
	domains, err := conn.ListAllDomains(0)
	if err != nil {
		return nil, err
	}
	for i := range domains {
		if v, err := hostVMOf(&domains[i]); err == nil { // else it has just gone
			h.vms = append(h.vms, v)
		}
		_ = domains[i].Free() // a handle
	}
	// Each of these is a driver of its own, which a host may do without: nothing is said then.
	if nets, err := conn.ListAllNetworks(0); err == nil {
		h.networks = map[string]hostNetwork{}
		for i := range nets {
			if name, n, err := hostNetworkOf(&nets[i]); err == nil {
				h.networks[name] = n
			}
			_ = nets[i].Free()
		}
	}
	if filters, err := conn.ListAllNWFilters(0); err == nil {
		h.filters = map[string]bool{}
		for i := range filters {
			if name, err := filters[i].GetName(); err == nil {
				h.filters[name] = true
			}
			_ = filters[i].Free()
		}
	}
	if secrets, err := conn.ListAllSecrets(0); err == nil {
		h.secrets = map[string]bool{}
		for i := range secrets {
			if id, err := secrets[i].GetUUIDString(); err == nil {
				h.secrets[strings.ToLower(id)] = true
			}
			_ = secrets[i].Free()
		}
	}
	return h, nil
}

// hostVMOf reads what tells a VM from others.
func hostVMOf(dom *libvirt.Domain) (v hostVM, err error) {
	if v.name, err = dom.GetName(); err != nil {
		return v, err
	}
	if v.uuid, err = dom.GetUUIDString(); err != nil {
		return v, err
	}
	v.uuid = strings.ToLower(v.uuid)
	v.running, err = dom.IsActive()
	return v, err
}

// hostNetworkOf reads a network of libvirt's. One that is not persistent counts as starting with the host.
func hostNetworkOf(net *libvirt.Network) (name string, n hostNetwork, err error) {
	if name, err = net.GetName(); err != nil {
		return name, n, err
	}
	if n.active, err = net.IsActive(); err != nil {
		return name, n, err
	}
	if kept, err := net.IsPersistent(); err != nil || !kept {
		n.autostart = true // whoever made it for this run of the host sees to it
	} else if n.autostart, err = net.GetAutostart(); err != nil {
		return name, n, err
	}
	text, err := net.GetXMLDesc(0)
	if err != nil {
		return name, n, err
	}
	n.bridge, n.portgroups, err = networkOf([]byte(text))
	return name, n, err
}

// dryRun has libvirt do all that it does for a start, but for the start. What it said is kept for the definition
// and the file of its emulator, which an update changes. One that went badly is repeated after dryBad, or ten times
// as long as it took. When ctx ends first it goes on alone, for the next one who asks.
func (h *Hypervisor) dryRun(ctx context.Context, def vmmanager.Definition, emulator *element) (
	[]vmmanager.Finding, error,
) {
	of := fmt.Sprint(textHash(string(def.Text)), stamp(textOf(emulator)))
	t := h.trial
	select {
	case t.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, fmt.Errorf("libvirt is still trying out another definition: %w", ctx.Err())
	}
	if last := t.dry[def.Name]; last.of == of && time.Now().Before(last.until) {
		<-t.turn
		return last.found, nil
	}
	type answer struct {
		found []vmmanager.Finding
		err   error
	}
	done := make(chan answer, 1)
	go func() {
		defer func() { <-t.turn }()
		began := time.Now()
		found, err := h.tryOut(context.WithoutCancel(ctx), def.Text)
		if err == nil {
			run := dryRun{of: of, until: time.Now().Add(dryGood), found: found}
			if len(found) > 0 {
				run.until = time.Now().Add(max(dryBad, 10*time.Since(began))) // not all the time, where it takes long
			}
			t.keep(def.Name, run)
		}
		done <- answer{found, err}
	}()
	select {
	case a := <-done:
		return a.found, a.err
	case <-ctx.Done():
		return nil, fmt.Errorf("libvirt is still trying it out: %w", ctx.Err())
	}
}

// stamp changes when the file does.
func stamp(path string) string {
	st, err := os.Stat(path)
	if err != nil {
		return ""
	}
	return fmt.Sprint(st.Size(), st.ModTime().UnixNano())
}

// tryOut checks a definition as a validated define does, and has libvirt make QEMU's
// command line of it. Neither changes anything. The schema comes first: libvirt's command line is made of what it
// knows, and what it does not know is silently left out of it. An error, but for a libvirtd that does not answer,
// is what libvirt says to the definition.
func (h *Hypervisor) tryOut(ctx context.Context, text []byte) ([]vmmanager.Finding, error) {
	if said := schemaFault(text); said != "" {
		return []vmmanager.Finding{refusedDry(said, true)}, nil
	}
	dry, err := dryText(text)
	if err != nil {
		return nil, err
	}
	said, err := ask(ctx, h, dryTime, func(conn *libvirt.Connect) (error, error) {
		_, err := conn.DomainXMLToNative("qemu-argv", string(dry), 0)
		if err == nil || hasCode(err, libvirt.ERR_NO_SUPPORT) { // a driver that is not QEMU's
			return nil, nil
		}
		if errors.Is(translate(err), vmmanager.ErrUnavailable) {
			return nil, err
		}
		return err, nil
	})
	if err != nil || said == nil {
		return nil, err
	}
	// What it says of the definition itself it says to a start too; all else may be the host of this moment.
	certain := hasCode(said, libvirt.ERR_CONFIG_UNSUPPORTED) || hasCode(said, libvirt.ERR_CPU_INCOMPATIBLE) ||
		hasCode(said, libvirt.ERR_XML_ERROR) || hasCode(said, libvirt.ERR_XML_DETAIL)
	return []vmmanager.Finding{refusedDry(message(said), certain)}, nil
}

// schemas has all schema checks of this process made by one thread: libxml2 is not
// thread-safe in its first one, and each thread that makes some keeps several MiB for them.
// Like libvirt's event loop it belongs to the process.
var schemas = sync.OnceValue(func() chan<- func() {
	work := make(chan func())
	go onOneThread(work)
	return work
})

func onOneThread(work <-chan func()) {
	runtime.LockOSThread()
	for f := range work {
		f()
	}
}

// schemaFault says what in a definition libvirt's schema does not know; "" if it knows all. It waits for the checks
// of others, and for no daemon.
func schemaFault(text []byte) string {
	said := make(chan string, 1)
	schemas() <- func() { said <- checkSchema(text) }
	return <-said
}

// checkSchema has libvirt's driver for tests, which lives in this process and keeps
// nothing, check a definition with the schema of this host.
func checkSchema(text []byte) string {
	conn, err := libvirt.NewConnect("test:///default")
	if err != nil {
		return "" // built without it: a define will tell
	}
	defer conn.Close()
	dom, err := conn.DomainDefineXMLFlags(string(text), libvirt.DOMAIN_DEFINE_VALIDATE)
	if err == nil {
		_ = dom.Undefine() // it goes with the connection anyway
		_ = dom.Free()
		return ""
	}
	if hasCode(err, libvirt.ERR_XML_INVALID_SCHEMA) {
		return message(err)
	}
	return "" // what this driver says beyond the schema is not QEMU's
}
