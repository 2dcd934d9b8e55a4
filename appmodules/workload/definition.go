package workload

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"duet/appmodules"
	"duet/blockrepl/durable"
	"duet/vmmanager"
)

// errStrayed is why a definition does not follow to the peer.
var errStrayed = errors.New("a disk is not on its volume")

// Compare holds the hypervisor's definition against the one that is kept. It changes the hypervisor's in three cases:
// there is none, it may be an older one or an edit of one, or a disk in it is not on its volume.
// Where the newest data are beside the volumes the definition is left, as it says where they are.
func (v *VM) Compare(ctx context.Context, kept appmodules.Kept) (appmodules.Edit, error) {
	hv := v.cfg.Hypervisor
	stored := vmmanager.Definition{Name: v.domain, Text: kept.Text}
	now, err := hv.Definition(ctx, v.domain)
	switch {
	case errors.Is(err, vmmanager.ErrNotFound), !kept.Known:
		return appmodules.Edit{Replaced: replaced(now.Text, kept)}, hv.Define(ctx, stored)
	case err != nil:
		return appmodules.Edit{}, err
	case bytes.Equal(now.Text, kept.Text):
		return appmodules.Edit{Has: appmodules.Digest(now.Text)}, nil
	}
	rewired, unfit := hv.Rewire(now, v.cfg.Endpoints)
	if v.offVolumes(now) {
		// A disk was taken off its volume: the guest would write past the replication. But where it
		// does so by now, its newest data are there.
		if live, err := hv.Strays(ctx, v.domain, v.cfg.Endpoints); err != nil {
			return appmodules.Edit{}, err
		} else if kept.Strayed || slices.ContainsFunc(live, away) {
			return appmodules.Edit{Text: now.Text, Unfit: errStrayed, Has: appmodules.Digest(now.Text)}, nil
		}
		if unfit == nil {
			stored = rewired
		}
		v.cfg.Logger.Warn("the VM's definition was edited so that a disk is not on its volume: it is put back", "module",
			v.cfg.Module.Name)
		if err := hv.Define(ctx, stored); err != nil {
			return appmodules.Edit{}, err
		}
		return appmodules.Edit{Text: stored.Text, Unfit: unfit}, nil // what the hypervisor has made of it is not known
	}
	return appmodules.Edit{Text: now.Text, Unfit: unfit, Has: appmodules.Digest(now.Text)}, nil
}

// Retain never writes over what it has kept: a file is named by its text.
func (v *VM) Retain(text []byte) (where string, err error) {
	where = filepath.Join(v.cfg.Retained, v.cfg.Module.Name+"-"+appmodules.Digest(text)[:12]+".xml")
	if err := os.MkdirAll(v.cfg.Retained, 0o700); err != nil {
		return "", err
	}
	if err := durable.WriteFile(where, text); err != nil {
		return "", err
	}
	return where, durable.SyncDir(filepath.Dir(v.cfg.Retained)) // it may have been made
}

// replaced is text where that is an edit, and not what this node had before the one that is kept came.
func replaced(text []byte, kept appmodules.Kept) []byte {
	if kept.Had == "" || len(text) == 0 || kept.Had == appmodules.Digest(text) || bytes.Equal(text, kept.Text) {
		return nil
	}
	return text
}

// offVolumes: a disk in the definition is not on its volume.
func (v *VM) offVolumes(def vmmanager.Definition) bool {
	on := v.cfg.Hypervisor.On(def)
	return slices.ContainsFunc(v.cfg.Endpoints, func(to vmmanager.Endpoint) bool { return !slices.Contains(on, to) })
}

// Stored reads the hypervisor's definition. One that is not on the volumes may be on its way to or from them, by a
// protect or a release: it is left to the next start, which puts an admin's back.
func (v *VM) Stored(ctx context.Context) (appmodules.Edit, error) {
	now, err := v.cfg.Hypervisor.Definition(ctx, v.domain)
	switch {
	case errors.Is(err, vmmanager.ErrNotFound):
		return appmodules.Edit{}, nil
	case err != nil || v.offVolumes(now):
		return appmodules.Edit{}, err
	}
	_, unfit := v.cfg.Hypervisor.Rewire(now, v.cfg.Endpoints)
	return appmodules.Edit{Text: now.Text, Unfit: unfit, Has: appmodules.Digest(now.Text)}, nil
}

// Judge asks the hypervisor what it would refuse.
func (v *VM) Judge(ctx context.Context, text []byte) (refusal string, err error) {
	found, err := v.cfg.Hypervisor.Judge(ctx, vmmanager.Definition{Name: v.domain, Text: text})
	var all []string
	for _, f := range vmmanager.Refusals(found) {
		all = append(all, f.Whole())
	}
	return strings.Join(all, "; "), err
}

// Define stores a definition in the hypervisor.
func (v *VM) Define(ctx context.Context, text []byte) error {
	if err := v.cfg.Hypervisor.Define(ctx, vmmanager.Definition{Name: v.domain, Text: text}); err != nil {
		return fmt.Errorf("define %s: %w", v.domain, err)
	}
	return nil
}

// away: the disk has left its volume.
func away(d vmmanager.Stray) bool { return !d.Extra && d.On != "" }

// Strays asks the hypervisor where the disks of the VM are.
func (v *VM) Strays(ctx context.Context) ([]appmodules.Stray, error) {
	found, err := v.cfg.Hypervisor.Strays(ctx, v.domain, v.cfg.Endpoints)
	if err != nil {
		return nil, err
	}
	var out []appmodules.Stray
	for _, d := range found {
		out = append(out, appmodules.Stray{Away: away(d), Notice: v.notice(d)})
	}
	return out, nil
}

// notice says what to do with a disk that is not on its volume. The codes stay when words change. Only a disk that
// has left its volume is an alarm.
func (v *VM) notice(d vmmanager.Stray) appmodules.Notice {
	switch {
	case d.Extra:
		return appmodules.Notice{Code: "disk-not-replicated",
			Text: fmt.Sprintf("disk %s (%s) was added to the VM and is not replicated", d.Target, d.On),
			Remedy: fmt.Sprintf("take it off: virsh detach-disk %s %s --live --config; or release the VM and protect it again "+
				"with it",
				v.domain, d.Target)}
	case d.On == "":
		return appmodules.Notice{Code: "disk-detached",
			Text:   fmt.Sprintf("the running VM has no disk %s any more", d.Target),
			Remedy: "it has it again after its next start"}
	case d.Above:
		return appmodules.Notice{Alarm: true, Code: appmodules.DiskElsewhere,
			Text: fmt.Sprintf("disk %s is on %s, a snapshot over its volume: what the guest writes is not replicated",
				d.Target, d.On),
			Remedy: fmt.Sprintf("virsh blockcommit %s %s --active --pivot --wait", v.domain, d.Target)}
	}
	return appmodules.Notice{Alarm: true, Code: appmodules.DiskElsewhere,
		Text: fmt.Sprintf("disk %s is on %s and not on its volume: what the guest writes is not replicated", d.Target,
			d.On),
		Remedy: fmt.Sprintf("duet vm return %s, which copies it back while the VM runs", v.cfg.Module.Name)}
}

// Store has the definitions of VMs that are modules, on this host.
type Store struct{ Hypervisor }

// Define stores the definition of a module's VM, and returns the Digest of what the hypervisor made of it.
func (s Store) Define(ctx context.Context, m appmodules.Module, text []byte) (string, error) {
	if err := s.Hypervisor.Define(ctx, vmmanager.Definition{Name: m.Subject(), Text: text}); err != nil {
		return "", err
	}
	def, err := s.Hypervisor.Definition(ctx, m.Subject())
	return appmodules.Digest(def.Text), err
}

// Undefine forgets it; one that is gone is no error.
func (s Store) Undefine(ctx context.Context, m appmodules.Module) error {
	if err := s.Hypervisor.Undefine(ctx, m.Subject()); err != nil && !errors.Is(err, vmmanager.ErrNotFound) {
		return err
	}
	return nil
}
