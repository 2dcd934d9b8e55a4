package scenario

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"duet/testbed/testcluster"
)

// TestFortyAtOnce: a script protects forty VMs of mixed shapes at once, just after libvirtd
// was started: none of them meets an error that another try would not have met.
func TestFortyAtOnce(t *testing.T) {
	const count, running = 40, 8
	l := start(t, 72)
	ctx := bounded(t, 6*time.Minute)
	a, b := l.Hosts[testcluster.Alpha], l.Hosts[testcluster.Beta]
	shapes := [][]string{
		nil,
		{"<memballoon model='none'/>", "<memballoon model='virtio'/><rng model='virtio'><backend " +
			"model='random'>/dev/urandom</backend></rng>"},
		{"<memballoon model='none'/>", "<controller type='scsi' model='virtio-scsi'/><channel type='unix'><target " +
			"type='virtio' name='org.qemu.guest_agent.0'/></channel>"},
		{"<memballoon model='none'/>", "<disk type='file' device='cdrom'><target dev='hdc' bus='ide'/><readonly/></disk>"},
		{"<vcpu placement='static'>1</vcpu>", "<vcpu placement='static'>2</vcpu>", "<features>",
			"<cpu mode='host-model' check='partial'/><features>"},
	}
	name := func(i int) string { return fmt.Sprintf("vm%02d", i) }
	for i := range count {
		must(t, a.DefineTiny(ctx, name(i), 1<<20))
		if shape := shapes[i%len(shapes)]; shape != nil {
			redefine(ctx, t, a, name(i), shape...)
		}
		if i < running {
			virsh(ctx, t, a, "start", name(i))
		}
	}
	must(t, a.Libvirt.Restart(ctx))
	must(t, b.Libvirt.Restart(ctx))
	var all sync.WaitGroup
	for i := range count {
		all.Go(func() {
			if out, err := a.Duet(ctx, "vm", "protect", name(i), "--peer", "beta", "--arbitration", "available"); err != nil {
				t.Errorf("%s: %v\n%s", name(i), err, out)
			}
		})
	}
	all.Wait()
	for i := range running {
		must(t, a.Is(ctx, name(i), "PRIM"))
		must(t, b.Is(ctx, name(i), "SECOND"))
	}
	if defined := strings.Fields(virsh(ctx, t, b, "list", "--all", "--name")); len(defined) != count {
		t.Errorf("beta has %d of %d VMs: %v", len(defined), count, defined)
	}
}
