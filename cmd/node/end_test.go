package node

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"duet/cluster"
	"duet/vmmanager"
)

// hung is a hypervisor that hangs from a point on, whatever ctx its callers have, until it is released.
type hung struct {
	hypervisor
	mu     sync.Mutex
	inside chan struct{} // closed by the first call that hangs; nil: none does
	free   chan struct{}
}

// hang has later calls hang; the channel that it returns is closed when one does.
func (h *hung) hang() <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.inside, h.free = make(chan struct{}), make(chan struct{})
	return h.inside
}

// release lets all calls go on.
func (h *hung) release() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.free != nil {
		close(h.free)
		h.inside, h.free = nil, nil
	}
}

func (h *hung) wait() {
	h.mu.Lock()
	inside, free := h.inside, h.free
	if inside != nil {
		select {
		case <-inside:
		default:
			close(inside)
		}
	}
	h.mu.Unlock()
	if free != nil {
		<-free
	}
}

// Inspect is what the doctor asks for.
func (h *hung) Inspect(ctx context.Context) (vmmanager.HostReport, error) {
	h.wait()
	return h.hypervisor.Inspect(ctx)
}

// State is what an engine asks for.
func (h *hung) State(ctx context.Context, name string) (vmmanager.State, error) {
	h.wait()
	return h.hypervisor.State(ctx, name)
}

// farewell stops a member whose hypervisor hangs, and fails unless its peer hears that it leaves while that goes on.
func (p *pair) farewell(m, peer *member, h *hung) {
	p.t.Helper()
	stopped := make(chan struct{})
	n := m.node
	m.node = nil
	go func() {
		defer close(stopped)
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second) // as duetd does
		defer cancel()
		_ = n.Stop(ctx) // that something hangs is an error of it
	}()
	defer func() {
		h.release()
		<-stopped
	}()
	until(p.t, peer.name+" hears that "+m.name+" leaves", func() error {
		if at := peer.node.gossip.View().Peers[cluster.NodeID(m.name)]; !at.Leaving {
			return errors.New("it does not")
		}
		return nil
	})
}

// TestFarewellAfterHungCall: a call of the API that hangs does not keep the peer from hearing that this node leaves: a
// planned restart is no failover.
func TestFarewellAfterHungCall(t *testing.T) {
	p := newPair(t)
	p.stop(p.a)
	h := &hung{hypervisor: p.a.hv.(hypervisor)}
	p.a.hv = h
	p.start(p.a)
	until(t, "the nodes hear each other", func() error {
		if !p.b.node.gossip.View().Alive("alpha") || !p.a.node.gossip.View().Alive("beta") {
			return errors.New("they do not")
		}
		return nil
	})
	inside := h.hang()
	tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(p.a.dir, "s"))
	}}
	defer tr.CloseIdleConnections()
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		if resp, err := (&http.Client{Transport: tr}).Get("http://duet/v1/doctor"); err == nil {
			_ = resp.Body.Close() // it may have been answered before it was cut
		}
	}()
	<-inside
	p.farewell(p.a, p.b, h)
	<-answered
}

// TestFarewellOfHungModules: modules that do not end keep nobody from hearing that this node leaves.
func TestFarewellOfHungModules(t *testing.T) {
	p := newPair(t)
	p.protected("web01")
	p.stop(p.a)
	h := &hung{hypervisor: p.a.hv.(hypervisor)}
	p.a.hv = h
	p.start(p.a)
	p.is(p.a, "web01", "PRIM")
	p.is(p.b, "web01", "SECOND")
	<-h.hang()
	p.farewell(p.a, p.b, h)
}

// TestFailedStartLeavesNothing: a node that could not be built or started has closed the journals of its modules, whose
// goroutines TestMain looks for.
func TestFailedStartLeavesNothing(t *testing.T) {
	p := newPair(t)
	p.protected("web01")
	p.stop(p.a)
	// Its port is taken.
	ln, err := net.Listen("tcp", net.JoinHostPort(p.a.ip, strconv.Itoa(p.port)))
	must(t, err)
	defer ln.Close()
	n, err := New(Config{Dir: p.a.dir, Socket: filepath.Join(p.a.dir, "s"), RunDir: filepath.Join(p.a.dir, "r"),
		Hypervisor: p.a.hv, MinFree: 1 << 20, Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
	must(t, err)
	all := n.All()
	if err := n.Start(); err == nil || len(all) != 1 {
		t.Fatalf("it started on a port that is taken, with %d modules: %v", len(all), err)
	}
}
