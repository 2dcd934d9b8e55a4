package mirror

import (
	"maps"
	"net"
	"path/filepath"
	"slices"
	"testing"

	"duet/appmodules"
)

// heldSockets are kept sockets without the sockets.
type heldSockets map[string]bool

func (h heldSockets) Take(string) *net.UnixListener            { return nil }
func (h heldSockets) Keep(p string, _ *net.UnixListener) error { h[p] = true; return nil }
func (h heldSockets) Drop(p string)                            { delete(h, p) }
func (h heldSockets) Paths() []string                          { return slices.Sorted(maps.Keys(h)) }

// TestWithdrawOthers: of what an earlier run has left only those sockets stay whose VMs may be served again.
func TestWithdrawOthers(t *testing.T) {
	held := heldSockets{}
	n := NewVolumes(VolumesConfig{Dir: "/run/duet", Sockets: held})
	of := func(name string, targets ...string) (m appmodules.Module, paths []string) {
		m.Name = name
		for _, target := range targets {
			m.Spec = appmodules.VM{Disks: append(m.Volumes(), appmodules.Volume{Target: target})}
			paths = append(paths, filepath.Join("/run/duet", name+"-"+target+".sock"))
		}
		return m, paths
	}
	web, wanted := of("web01", "vda", "vdb")
	half, more := of("half", "vda") // a release or protect that was cut short
	_, gone := of("gone", "vda")
	wanted = append(wanted, more...)
	ends := NewVolumes(VolumesConfig{Dir: "/run/duet"}) // with this process
	ends.WithdrawOthers(nil)
	ends.Withdraw(web)
	for _, path := range append(wanted, gone...) {
		if err := held.Keep(path, nil); err != nil {
			t.Fatal(err)
		}
	}
	n.WithdrawOthers([]appmodules.Module{web, half})
	slices.Sort(wanted)
	if got := held.Paths(); !slices.Equal(got, wanted) {
		t.Errorf("kept are %q, want %q", got, wanted)
	}
	n.Withdraw(web)
	if got := held.Paths(); !slices.Equal(got, more) {
		t.Errorf("kept are %q, want %q", got, more)
	}
}
