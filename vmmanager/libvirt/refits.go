//go:build linux && cgo && libvirt_dlopen

package libvirt

import (
	"context"
	"fmt"
	"sync"
)

// refits are the VMs that a Refit or Reload has, and that are off meanwhile with their memory saved. Whoever takes one
// for crashed and starts it would throw that memory away: a start waits for the end of the refit.
type refits struct {
	mu sync.Mutex
	on map[string]chan struct{} // closed at the end
}

// begin notes a refit; done is called once, at its end. A second refit of the VM takes the place of the first:
// works of one module go one at a time.
func (r *refits) begin(name string) (done func()) {
	over := make(chan struct{})
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.on == nil {
		r.on = map[string]chan struct{}{}
	}
	r.on[name] = over
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.on[name] == over {
			delete(r.on, name)
		}
		close(over)
	}
}

// wait returns when no refit has the VM. It waits for the one that it finds, not for one that begins later.
func (r *refits) wait(ctx context.Context, name string) error {
	r.mu.Lock()
	over := r.on[name]
	r.mu.Unlock()
	if over == nil {
		return nil
	}
	select {
	case <-over:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("start %s, whose definition is being exchanged: %w", name, ctx.Err())
	}
}
