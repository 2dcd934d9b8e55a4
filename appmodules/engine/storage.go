package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"duet/appmodules"
	"duet/blockrepl"
	"duet/blockrepl/wire"
)

// Storage makes the volumes of a module on this node: NewStorage, or a simulated one. All its methods may wait for a
// disk; the goroutine of the engine calls none of them. An engine opens a volume again only after Close of the one
// before.
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

// Primary is a served volume; its methods are those of blockrepl.Primary. Any goroutine may call them; Attach waits
// for the network, Hold for both disks, Close for the local one, the others for neither.
type Primary interface {
	// Attach greets the peer over conn, which it owns from now on. Closing drop loses the peer. ErrPeerIncomplete is the
	// durable word of the peer that its copy is not complete: this node may go on alone.
	Attach(ctx context.Context, conn net.Conn, epoch uint64) (drop io.Closer, err error)
	GoAlone(epoch uint64) error
	PeerComplete() error
	Ticket() blockrepl.Ticket
	Hold(ctx context.Context) error
	SetStallBudget(d time.Duration) // how long the peer may owe an answer
	SetLocalBudget(d time.Duration) // how long the disk here may
	Release()                       // ends Hold
	// Fence ends the volume at once, whatever its disk does: afterwards nothing is
	// acknowledged and no new write begins.
	Fence()
	// Close fences, waits for what is in flight on the image, flushes it and closes all.
	// A nil error says that everything acknowledged here survives power loss.
	Close() error
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
	// Yield sets the content aside and lets the primary with the lineage d.Winner overwrite it. Both are durable when it
	// returns nil, in this order; after an error the content is as it was.
	Yield(ctx context.Context, d Divergence) error
	// Fence ends Serve for ever, at once, whatever the disk does: afterwards nothing is
	// acknowledged and no new write begins.
	Fence()
	SetLocalBudget(d time.Duration) // how long the disk here may take
	// Close fences, waits for what is in flight on the image, flushes and closes it. A nil
	// error says that everything acknowledged here survives power loss.
	Close() error
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

// StorageConfig is what real volumes are made of. All fields but HotExtents are needed.
type StorageConfig struct {
	Module appmodules.Module // its policy is that of the moment: later edits reach open volumes by configure
	Node   string
	Disks  Disks
	Logger *slog.Logger
	// HotExtents is blockrepl.PrimaryConfig.HotExtents; 0 is its default.
	HotExtents int
}

// NewStorage makes volumes of images, dirty logs and frontends. It opens nothing.
func NewStorage(cfg StorageConfig) Storage {
	cfg.Disks = withLink{cfg.Disks}
	return &storage{cfg: cfg}
}

type storage struct {
	cfg StorageConfig
	// intact has the IDs of the closed volumes that are blockrepl.SecondaryConfig.Intact. A node that has handed over, or
	// stops following for a moment to ask for a right that it does not get, has lost nothing.
	intact sync.Map
}

// takeIntact forgets what it returns: from now on it is the open volume that knows.
func (s *storage) takeIntact(v appmodules.Volume) bool {
	_, intact := s.intact.LoadAndDelete(v.ID)
	return intact
}

// closed ends an image, which nobody uses any more, and says whether it is durable.
func (s *storage) closed(v appmodules.Volume, image Image, intact bool) error {
	err := image.Flush()
	if err != nil {
		err = fmt.Errorf("flush image: %w", err)
	}
	err = errors.Join(err, image.Close()) // after a failed flush too
	if err == nil && intact {
		s.intact.Store(v.ID, nil)
	}
	return err
}

// served is a blockrepl.Primary with all that belongs to it.
type served struct {
	*blockrepl.Primary
	image  Image
	volume appmodules.Volume
	made   *storage
	front  blockrepl.Frontend
	over   atomic.Bool   // Fence was called
	held   atomic.Bool   // both copies are the same
	ended  chan struct{} // closed when the frontend has ended
}

// Primary opens the image, then the log, then the socket, and serves at once: requests of a guest that comes are
// taken and wait for the state of the volume. A front end that ends although nobody has fenced the volume is a
// failure of the device, as the guest has no disk any more.
func (s *storage) Primary(v appmodules.Volume, report func(blockrepl.Event)) (Primary, error) {
	image, err := s.cfg.Disks.Open(v)
	if err != nil {
		return nil, err
	}
	s.takeIntact(v)
	p := &served{image: image, volume: v, made: s, ended: make(chan struct{})}
	p.Primary, err = blockrepl.NewPrimary(blockrepl.PrimaryConfig{
		Volume: s.name(v), Node: s.cfg.Node, Identity: v.ID,
		Device: image, Log: s.cfg.Disks.Log(v), Logger: s.cfg.Logger,
		StallBudget: time.Duration(s.cfg.Module.Policy.StallBudget), LocalBudget: s.cfg.Module.Policy.Disk(), Events: report,
		HotExtents: s.cfg.HotExtents,
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
		err := p.front.Serve(p.Primary)
		if !p.over.Load() { // the guest has no disk any more
			report(blockrepl.DeviceFailed{Err: fmt.Errorf("its front end ended: %w", cmp.Or(err, errFrontend))})
		}
	}()
	return p, nil
}

func (s *storage) Written(v appmodules.Volume) time.Time { return s.cfg.Disks.Written(v) }

func (s *storage) Known(v appmodules.Volume) (blockrepl.Lineage, int64, error) {
	entries, l, err := s.cfg.Disks.Log(v).Load()
	if err != nil || l == nil {
		return blockrepl.Lineage{}, 0, err
	}
	return *l, blockrepl.Suspect(entries, v.Size), nil
}

func (s *storage) name(v appmodules.Volume) string { return s.cfg.Module.Name + "/" + v.Target }

func (p *served) Attach(ctx context.Context, nc net.Conn, epoch uint64) (io.Closer, error) {
	conn := wire.NewConn(nc)
	return conn, p.Primary.Attach(ctx, conn, epoch)
}

// errFrontend is why a frontend ended that does not say why.
var errFrontend = errors.New("it gave no reason")

func (p *served) Fence() {
	p.over.Store(true)
	p.Primary.Fence()
}

func (p *served) Hold(ctx context.Context) error {
	err := p.Primary.Hold(ctx)
	p.held.Store(err == nil)
	return err
}

func (p *served) Release() {
	p.held.Store(false)
	p.Primary.Release()
}

// Close keeps this order: the volume ends, so that its requests have ended when the front end does, and the image is
// closed when nobody can reach it any more.
func (p *served) Close() error {
	p.Fence()
	p.Primary.Close()
	_ = p.front.Close() // its connections are gone with the volume
	<-p.ended
	return p.made.closed(p.volume, p.image, p.held.Load())
}

// follows is a blockrepl.Secondary with its image.
type follows struct {
	*blockrepl.Secondary
	image  Image
	volume appmodules.Volume
	made   *storage
}

func (s *storage) Secondary(v appmodules.Volume) (Secondary, error) {
	image, err := s.cfg.Disks.Open(v)
	if err != nil {
		return nil, err
	}
	sec, err := blockrepl.NewSecondary(blockrepl.SecondaryConfig{
		Volume: s.name(v), Node: s.cfg.Node, Identity: v.ID,
		Device: image, Log: s.cfg.Disks.Log(v), Logger: s.cfg.Logger, LocalBudget: s.cfg.Module.Policy.Disk(),
		Intact: s.takeIntact(v),
	})
	if err != nil {
		_ = image.Close() // nothing was written
		return nil, err
	}
	return follows{sec, image, v, s}, nil
}

var errForeignConnection = errors.New("a simulated connection cannot be served by a real volume")

func (f follows) Serve(ctx context.Context, in Incoming, complete bool) error {
	c, ok := in.(*Connection)
	if !ok {
		return errForeignConnection
	}
	return f.Secondary.Serve(ctx, c.Conn, c.Greeting, complete)
}

// Yield overwrites nothing by itself: Rejoin makes the copy one that may be.
func (f follows) Yield(ctx context.Context, d Divergence) error {
	if err := f.made.cfg.Disks.SetAside(f.volume, f.image, d); err != nil {
		return fmt.Errorf("keep this node's version: %w", err)
	}
	return f.Secondary.Rejoin(ctx, d.Winner)
}

func (f follows) Close() error {
	f.Secondary.Close()
	return f.made.closed(f.volume, f.image, f.Secondary.Intact())
}
