package blockrepl_test

import (
	"context"
	"net"
	"testing"

	"duet/blockrepl"
	"duet/blockrepl/backing"
	"duet/blockrepl/blocktest"
	"duet/blockrepl/memlog"
	"duet/blockrepl/wire"
)

// A Primary is a Queue, with a peer and without.
func TestPrimaryIsQueue(t *testing.T) {
	t.Run("alone", func(t *testing.T) {
		blocktest.Queue(t, func(t *testing.T) blockrepl.Queue { return primary(t, memory(), func(blockrepl.Event) {}) })
	})
	t.Run("every read waits for the disk", func(t *testing.T) {
		blocktest.Queue(t, func(t *testing.T) blockrepl.Queue {
			return primary(t, struct{ blockrepl.Device }{memory()}, func(blockrepl.Event) {})
		})
	})
	t.Run("peer", func(t *testing.T) {
		blocktest.Queue(t, func(t *testing.T) blockrepl.Queue {
			drained := make(chan struct{}, 1)
			p := primary(t, memory(), func(e blockrepl.Event) {
				if _, is := e.(blockrepl.Drained); is {
					drained <- struct{}{}
				}
			})
			s := attach(t, p)
			<-drained
			if err := s.Complete(t.Context(), p.Ticket()); err != nil {
				t.Fatal(err)
			}
			if err := p.PeerComplete(); err != nil {
				t.Fatal(err)
			}
			return p
		})
	})
	t.Run("peer that is brought in step", func(t *testing.T) {
		blocktest.Queue(t, func(t *testing.T) blockrepl.Queue {
			p := primary(t, memory(), func(blockrepl.Event) {})
			attach(t, p)
			return p
		})
	})
}

func memory() blockrepl.Device { return backing.NewMemory(blocktest.DeviceSize) }

// primary returns a volume that may write, alone.
func primary(t *testing.T, dev blockrepl.Device, events func(blockrepl.Event)) *blockrepl.Primary {
	log := memlog.New()
	t.Cleanup(log.Close)
	p, err := blockrepl.NewPrimary(blockrepl.PrimaryConfig{Volume: "vol", Identity: "id", Node: "alpha",
		Device: dev, Log: log, Events: events})
	if err != nil {
		t.Fatal(err)
	}
	p.Start()
	t.Cleanup(p.Close)
	if err := p.GoAlone(1); err != nil {
		t.Fatal(err)
	}
	return p
}

// attach gives p a peer that has nothing.
func attach(t *testing.T, p *blockrepl.Primary) *blockrepl.Secondary {
	log := memlog.New()
	t.Cleanup(log.Close)
	s, err := blockrepl.NewSecondary(blockrepl.SecondaryConfig{Volume: "vol", Identity: "id", Node: "beta",
		Device: memory(), Log: log})
	if err != nil {
		t.Fatal(err)
	}
	near, far := net.Pipe()
	served := make(chan struct{})
	go func() {
		defer close(served)
		conn := wire.NewConn(far)
		hello, err := blockrepl.ReadHello(context.Background(), conn)
		if err != nil {
			t.Error(err)
			return
		}
		_ = s.Serve(context.Background(), conn, hello, false) // it ends with the connection
	}()
	t.Cleanup(func() {
		p.Close()
		<-served
		s.Close()
	})
	if err := p.Attach(t.Context(), wire.NewConn(near), 1); err != nil {
		t.Fatal(err)
	}
	return s
}
