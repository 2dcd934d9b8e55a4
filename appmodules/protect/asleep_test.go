package protect_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"duet/appmodules/protect"
	"duet/console/api"
	"duet/vmmanager"
)

// asleep is a hypervisor whose VM does not go on from its saved memory while it lacks something.
type asleep struct {
	hypervisor
	lacks *atomic.Bool
	tries *atomic.Int32
}

var errLacks = errors.New("go on from saved memory: Network not found: `virsh net-start lan`")

func (h asleep) Refit(ctx context.Context, name string, edit vmmanager.Edit, between func() error) error {
	if err := h.CutRefit(name); err != nil {
		return err
	}
	return errors.Join(between(), errLacks)
}

func (h asleep) Reload(ctx context.Context, name string, edit vmmanager.Edit, between func() error) error {
	h.tries.Add(1)
	if h.lacks.Load() {
		return errLacks
	}
	return h.hypervisor.Reload(ctx, name, edit, between)
}

// TestReleaseRefused: a VM that this host could not start again as it is now is not saved for its release.
func TestReleaseRefused(t *testing.T) {
	w := protectedWorld(t, vmmanager.Running)
	w.hv.SetFindings("web01", vmmanager.Finding{Level: vmmanager.Refused, Code: "network-inactive", About: "interface 1",
		Fact: "network lan is not active", Remedy: "`virsh net-start lan`"})
	w.altered(nil, func(d *daemon, _ *string) {
		d.follow(d.begin("release"))
		if d.failed == nil || !strings.HasPrefix(d.failed.Error(), "the VM is protected as before: ") ||
			!strings.Contains(d.failed.Error(), "interface 1: network lan is not active: `virsh net-start lan`") {
			t.Errorf("it says %v", d.failed)
		}
		d.calm()
	})
	if faults := w.faults(vmmanager.Running); len(faults) > 0 || !w.protected() {
		t.Errorf("protected %v: %v", w.protected(), faults)
	}
}

// TestReleaseAsleep: a VM that does not go on from its saved memory is told as long as it is so, in the words of what
// keeps it, and goes on by itself soon after that was mended.
func TestReleaseAsleep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := protectedWorld(t, vmmanager.Running)
		var lacks atomic.Bool
		var tries atomic.Int32
		lacks.Store(true)
		w.altered(func(d *daemon, c *protect.Config) {
			c.Hypervisor = asleep{hypervisor{d.hv, d}, &lacks, &tries}
		}, func(d *daemon, _ *string) {
			d.follow(d.begin("release"))
			const want = "VM web01 is off and its memory is saved: nothing of its guest is lost; what is left of the release " +
				"goes on by itself within 15s of this being mended: go on from saved memory: Network not found: " +
				"`virsh net-start lan`"
			if d.failed == nil || d.failed.Error() != want {
				t.Errorf("it says %v", d.failed)
			}
			time.Sleep(time.Minute)
			all := d.works.Troubles()
			if len(all) != 1 || all[0].Module.Name != "web01" || all[0].Text != want ||
				time.Since(all[0].Since) < time.Minute {
				t.Errorf("its trouble is %+v", all)
			}
			wants(t, "the release again", d.works.Unended("web01"), api.ErrConflict, want)
			_, err := d.works.Protect(d.ctx, "web01", api.ProtectRequest{})
			wants(t, "a protect meanwhile", err, api.ErrConflict, want)
			if n := tries.Load(); n < 4 || n > 12 {
				t.Errorf("it was tried %d times in a minute", n)
			}
			lacks.Store(false)
			time.Sleep(15 * time.Second)
			if !d.calm() || len(d.works.Troubles()) != 0 || d.works.Unended("web01") != nil {
				t.Errorf("it is not through: %+v", d.works.Troubles())
			}
		})
		if faults := w.faults(vmmanager.Running); len(faults) > 0 || w.protected() {
			t.Errorf("protected %v: %v", w.protected(), faults)
		}
	})
}
