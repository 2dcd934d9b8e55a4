package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"time"

	"duet/appmodules"
	"duet/blockrepl"
	"duet/blockrepl/wire"
)

// Storage makes the volumes of a module on this node: NewStorage, or a simulated one.
type Storage interface {
	// Primary opens a volume and serves it to the hypervisor; all I/O waits. report gets
	// its events in order and must not block.
	Primary(v appmodules.Volume, report func(blockrepl.Event)) (Primary, error)
	// Secondary opens a volume for the peer's primary.
	Secondary(v appmodules.Volume) (Secondary, error)
	// Written is when the volume was last written, open or not; zero if that is not known.
	Written(v appmodules.Volume) time.Time
	// Known is the history of a volume that is not open, and how many bytes of it may
	// differ from the peer's copy.
	Known(v appmodules.Volume) (l blockrepl.Lineage, dirty int64, err error)
}

// Primary is a served volume; its methods are those of blockrepl.Primary.
type Primary interface {
	// Attach greets the peer over conn, which it owns from now on. Closing drop loses the peer.
	Attach(ctx context.Context, conn net.Conn, epoch uint64) (drop io.Closer, err error)
	GoAlone(epoch uint64) error
	PeerComplete() error
	Ticket() blockrepl.Ticket
	Hold(ctx context.Context) error
	SetStallBudget(d time.Duration)
	Release()
	// Close ends the volume, its frontend and its image; afterwards nothing is acknowledged.
	Close()
	Figures
}

// Figures are what people see of a Primary, and what they can ask of it.
type Figures interface {
	Progress() blockrepl.Progress
	Stats() blockrepl.Stats
	Verify(repair bool) error
}

// Secondary is an open volume that follows the peer's primary; its methods are those
// of blockrepl.Secondary.
type Secondary interface {
	// Serve applies what comes over in until it ends; it always returns a reason.
	Serve(ctx context.Context, in Incoming, complete bool) error
	Complete(ctx context.Context, t blockrepl.Ticket) error
	Lineage() blockrepl.Lineage
	Applied() uint64
	// Heard is when the primary last sent something; zero if it never did.
	Heard() time.Time
	// Yield sets the content aside and lets the primary with the lineage d.Winner overwrite it.
	Yield(ctx context.Context, d Divergence) error
	// Flush ends Serve for ever and makes everything applied durable.
	Flush() error
	// Close ends Serve for ever and closes the image.
	Close()
}

// Incoming is a replication connection from a primary whose Hello was read.
type Incoming interface {
	Hello() blockrepl.Hello
	Refuse(r blockrepl.Refusal) error
	io.Closer
}

// Connection is an Incoming of the real network.
type Connection struct {
	Conn     *wire.Conn
	Greeting blockrepl.Hello
}

// Hello is what the primary said first.
func (c *Connection) Hello() blockrepl.Hello { return c.Greeting }

// Refuse tells the primary why it is not accepted, best effort, and closes the connection.
func (c *Connection) Refuse(r blockrepl.Refusal) error { return blockrepl.Refuse(c.Conn, r) }

// Close ends the connection.
func (c *Connection) Close() error { return c.Conn.Close() }

// StorageConfig is what real volumes are made of. All fields are needed.
type StorageConfig struct {
	Module appmodules.Module
	Node   string
	Disks  Disks
	Logger *slog.Logger
}

// NewStorage makes volumes of images, dirty logs and frontends.
func NewStorage(cfg StorageConfig) Storage {
	cfg.Disks = withLink{cfg.Disks}
	return storage{cfg}
}

type storage struct{ cfg StorageConfig }

// served is a blockrepl.Primary with all that belongs to it.
type served struct {
	*blockrepl.Primary
	image Image
	front blockrepl.Frontend
	ended chan struct{} // closed when the frontend has ended
}

func (s storage) Primary(v appmodules.Volume, report func(blockrepl.Event)) (Primary, error) {
	image, err := s.cfg.Disks.Open(v)
	if err != nil {
		return nil, err
	}
	p := &served{image: image, ended: make(chan struct{})}
	p.Primary, err = blockrepl.NewPrimary(blockrepl.PrimaryConfig{
		Volume: s.name(v), Node: s.cfg.Node, Identity: v.ID,
		Device: image, Log: s.cfg.Disks.Log(v), Logger: s.cfg.Logger,
		StallBudget: time.Duration(s.cfg.Module.Policy.StallBudget), Events: report,
	})
	if err == nil {
		p.front, err = s.cfg.Disks.Frontend(s.cfg.Module.Name, v)
	}
	if err != nil {
		_ = image.Close() // nothing was written
		return nil, err
	}
	p.Start()
	go func() {
		defer close(p.ended)
		if err := p.front.Serve(p.Primary); err != nil {
			s.cfg.Logger.Error("frontend ended", "volume", s.name(v), "err", err)
		}
	}()
	return p, nil
}

func (s storage) Written(v appmodules.Volume) time.Time { return s.cfg.Disks.Written(v) }

func (s storage) Known(v appmodules.Volume) (blockrepl.Lineage, int64, error) {
	entries, l, err := s.cfg.Disks.Log(v).Load()
	if err != nil || l == nil {
		return blockrepl.Lineage{}, 0, err
	}
	return *l, blockrepl.Suspect(entries, v.Size), nil
}

func (s storage) name(v appmodules.Volume) string { return s.cfg.Module.Name + "/" + v.Target }

func (p *served) Attach(ctx context.Context, nc net.Conn, epoch uint64) (io.Closer, error) {
	conn := wire.NewConn(nc)
	return conn, p.Primary.Attach(ctx, conn, epoch)
}

func (p *served) Close() {
	p.Primary.Close()
	_ = p.front.Close() // its connections are gone with the volume
	<-p.ended
	_ = p.image.Close() // what counts was flushed before
}

// following is a blockrepl.Secondary with its image.
type following struct {
	*blockrepl.Secondary
	image  Image
	volume appmodules.Volume
	cfg    StorageConfig
}

func (s storage) Secondary(v appmodules.Volume) (Secondary, error) {
	image, err := s.cfg.Disks.Open(v)
	if err != nil {
		return nil, err
	}
	sec, err := blockrepl.NewSecondary(blockrepl.SecondaryConfig{
		Volume: s.name(v), Node: s.cfg.Node, Identity: v.ID,
		Device: image, Log: s.cfg.Disks.Log(v), Logger: s.cfg.Logger,
	})
	if err != nil {
		_ = image.Close() // nothing was written
		return nil, err
	}
	return following{sec, image, v, s.cfg}, nil
}

var errForeignConnection = errors.New("a simulated connection cannot be served by a real volume")

func (f following) Serve(ctx context.Context, in Incoming, complete bool) error {
	c, ok := in.(*Connection)
	if !ok {
		return errForeignConnection
	}
	return f.Secondary.Serve(ctx, c.Conn, c.Greeting, complete)
}

func (f following) Yield(ctx context.Context, d Divergence) error {
	if err := f.cfg.Disks.SetAside(f.volume, f.image, d); err != nil {
		return fmt.Errorf("keep this node's version: %w", err)
	}
	return f.Secondary.Rejoin(ctx, d.Winner)
}

func (f following) Flush() error {
	f.Secondary.Close()
	if err := f.image.Flush(); err != nil {
		return fmt.Errorf("flush image: %w", err)
	}
	return nil
}

func (f following) Close() {
	f.Secondary.Close()
	_ = f.image.Close() // what counts was flushed before
}
