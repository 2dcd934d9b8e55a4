package node

import (
	"context"
	"fmt"
	"testing"

	"duet/appmodules/protect"
	"duet/appmodules/registry"
	"duet/blockrepl/badgerlog"
	"duet/console/api"
	"duet/vmmanager"
	"duet/vmmanager/images"
)

// slow is a hypervisor whose first call of one kind lasts until it is let go on, or its caller has no time left.
type slow struct {
	hypervisor
	call        string // define or definition
	begun, goOn chan struct{}
}

// slowed starts beta anew with a hypervisor that is slow.
func (p *pair) slowed(call string) *slow {
	p.t.Helper()
	h := &slow{hypervisor: p.b.hv.(hypervisor), call: call, begun: make(chan struct{}), goOn: make(chan struct{})}
	p.stop(p.b)
	p.b.hv = h
	p.start(p.b)
	until(p.t, "beta answers", func() error { return p.a.node.rpcTo(p.t.Context(), "beta", "version", nil, nil) })
	return h
}

func (h *slow) wait(ctx context.Context, call string) error {
	select {
	case <-h.begun: // not the first
		return nil
	default:
	}
	if call != h.call {
		return nil
	}
	close(h.begun)
	select {
	case <-h.goOn:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (h *slow) Define(ctx context.Context, def vmmanager.Definition) error {
	if err := h.wait(ctx, "define"); err != nil {
		return err
	}
	return h.hypervisor.Define(ctx, def)
}

func (h *slow) Definition(ctx context.Context, name string) (vmmanager.Definition, error) {
	if err := h.wait(ctx, "definition"); err != nil {
		return vmmanager.Definition{}, err
	}
	return h.hypervisor.Definition(ctx, name)
}

// TestRepeatedCallFindsTheFirstAtWork: a node that is slow to store a module gets the call for it once more, over
// another path, because the first path fell silent. The end of the first call once took away what the second had
// stored, and the node that ran the module without a stored configuration had forgotten it after a power loss.
func TestRepeatedCallFindsTheFirstAtWork(t *testing.T) {
	p := newPair(t)
	ctx := t.Context()
	p.protected("web01")
	_, err := p.a.node.Act(ctx, "web01", api.Stop, api.ActionRequest{})
	must(t, err)
	p.is(p.a, "web01", "STOP")
	p.is(p.b, "web01", "STOP")
	m, err := p.b.node.Find("web01")
	must(t, err)
	def, err := m.Engine.Definition(ctx)
	must(t, err)
	nm := registry.Fresh{Stored: m.Stored(), Source: "alpha", Definition: def}
	must(t, p.b.node.Remove(ctx, "web01"))

	h := p.slowed("define")
	first, cut := context.WithCancel(ctx)
	firstEnds, secondEnds := make(chan error, 1), make(chan error, 1)
	go func() { firstEnds <- p.a.node.rpcTo(first, "beta", "modules", nm, nil) }()
	<-h.begun
	go func() { secondEnds <- p.a.node.rpcTo(ctx, "beta", "modules", nm, nil) }()
	var answer error
	answered := false
	until(t, "the second call waits for the first, or has overtaken it", func() error {
		select {
		case answer = <-secondEnds:
			answered = true
			return nil
		default:
		}
		if n := p.b.node.Calls("web01"); n < 2 {
			return fmt.Errorf("%d calls are there", n)
		}
		return nil
	})
	cut() // nobody waits for the first call any more
	<-firstEnds
	if !answered {
		close(h.goOn)
		answer = <-secondEnds
	}
	must(t, answer)
	until(t, "the first call has ended on beta", func() error {
		if n := p.b.node.Calls("web01"); n != 0 {
			return fmt.Errorf("%d calls are at work", n)
		}
		return nil
	})
	p.stop(p.b)
	p.start(p.b)
	if _, err := p.b.node.Find("web01"); err != nil {
		t.Errorf("beta was told that it has the module, and after its restart: %v", err)
	}
}

// TestImagesUndoneBeforeTheyAreMade: who has given up waiting for images undoes them, and the node that makes them is
// slow. They once came to stay.
func TestImagesUndoneBeforeTheyAreMade(t *testing.T) {
	p := newPair(t)
	ctx := t.Context()
	h := p.slowed("definition")
	waits, cut := context.WithCancel(ctx)
	made := make(chan error, 1)
	places := []protect.Place{{Target: "vda", Size: 1 << 20}}
	go func() {
		made <- p.a.node.rpcTo(waits, "beta", "images",
			images.Hosting{ID: "1", Module: "web01", VM: "web01", Places: places}, nil)
	}()
	<-h.begun
	cut()
	<-made
	undone := make(chan error, 1)
	go func() { undone <- peers{p.a.node}.undo(ctx, "beta", "1", nil) }()
	for range 2 { // whichever of the two is first
		select {
		case h.goOn <- struct{}{}:
		case err := <-undone:
			must(t, err)
		}
	}
	until(t, "beta has made nothing, or undone it", func() error {
		notes, err := badgerlog.Values{Store: p.b.node.store}.Keys("hosted/")
		if left := p.images(p.b); err == nil && len(left)+len(notes) > 0 {
			err = fmt.Errorf("%v are left, of %v", left, notes)
		}
		return err
	})
}
