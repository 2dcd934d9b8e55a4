// Package voting keeps the witnesses of a cluster as a node uses them: who votes, agreed to by
// all nodes, which spare takes the place of one that is gone, and what they are told. The rule
// who may vote when is cluster.Voters; engines ask the witnesses themselves.
//
// # What it promises, and what not
//
// All that has to say yes for a right to write is what cluster.Voters says of the state stored here; nodes are never
// more than one step of it apart, because each step is stored by all before the next is told to anybody. A voter
// that is gone stops nothing by itself. That a node gets its votes is not promised: whoever asks waits, or goes on
// by other means only where no witness is configured.
//
// # Goroutines and locks
//
// Run is one goroutine of the node and starts some that end within a round. Panel.busy is held over the network for
// as long as a change takes, and keeps Run from changing anything beside an admin; Take does not wait for it, or two
// nodes that change at once would wait for each other. Panel.mu and Handle.mu are held for moments.
//
// # Files, in reading order
//
// panel.go is what is used, handle.go one witness, change.go how the voters change.
package voting

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"duet/cluster"
	"duet/cluster/membership"
	"duet/cluster/witness"
)

// Why a change of the voters is refused. The errors that carry them say what to do.
var (
	// ErrInvalid is returned for a request that makes no sense.
	ErrInvalid = errors.New("invalid")
	// ErrNotFound is returned where there is no such witness.
	ErrNotFound = errors.New("no such witness")
	// ErrConflict is returned for a change that cannot be made now.
	ErrConflict = errors.New("not now")
	// ErrAway is returned while a node does not answer.
	ErrAway = errors.New("a node does not answer")
)

// Config says what a Panel works with; all fields are needed.
type Config struct {
	Book *membership.Book
	View func() cluster.View
	// Call has another node take voters, and returns what it has then.
	Call func(ctx context.Context, node cluster.NodeID, v cluster.Voters) (cluster.Voters, error)
	// Apart has another node say whether a host is its own computer: ErrInvalid then; see Panel.Apart.
	Apart func(ctx context.Context, node cluster.NodeID, host string) error
	// Heard returns an error that names a module whose peer was not heard for so long.
	Heard func(within time.Duration) error
	// Identity of this node, for the witness.
	Authority   func() []byte
	Certificate func() *tls.Certificate
	// SpareAfter is how long the voter is silent before a spare takes its place. It counts from the first call that
	// failed; of a witness that has not answered since this run began, from its begin.
	SpareAfter time.Duration
	Logger     *slog.Logger
}

// Panel are the witnesses of this node's cluster. Any number of goroutines may use it.
type Panel struct {
	cfg  Config
	log  *slog.Logger
	busy sync.Mutex    // held while the voters are changed from here
	kick chan struct{} // has Run greet the witnesses now

	mu     sync.Mutex
	closed bool               // no witness is kept after it is set
	all    map[string]*Handle // by ID

	addrs func() ([]net.Addr, error) // of this computer: net.InterfaceAddrs, but in tests
}

// New returns a Panel of the witnesses that are configured; Run keeps it. An error tells of witnesses that this node
// cannot use; the Panel is good all the same.
func New(cfg Config) (*Panel, error) {
	p := &Panel{cfg: cfg, log: cfg.Logger, kick: make(chan struct{}, 1), all: make(map[string]*Handle),
		addrs: net.InterfaceAddrs}
	return p, p.use()
}

// use begins to use the witnesses that are stored and ends with those that are not. Connections that end are ended
// without a lock: calls on them may still be under way. A handle that stays is the same one, with what it knows of
// the witness.
func (p *Panel) use() error {
	p.mu.Lock()
	before := p.all
	p.all = make(map[string]*Handle, len(before))
	var errs []error
	for _, w := range p.voters().All() {
		h := before[w.ID]
		if h == nil {
			var err error
			h, err = p.newHandle(w)
			errs = append(errs, err)
		}
		delete(before, w.ID)
		if !p.closed {
			p.all[w.ID] = h
		}
	}
	p.mu.Unlock()
	return errors.Join(append(errs, hangUp(before))...)
}

// Close ends all connections. It is for the end of the node, after Run. Calls under way end with witness.ErrClosed.
func (p *Panel) Close() error {
	p.mu.Lock()
	before := p.all
	p.all, p.closed = nil, true
	p.mu.Unlock()
	return hangUp(before)
}

// hangUp waits for calls under way, which end at once.
func hangUp(all map[string]*Handle) error {
	var errs []error
	for _, h := range all {
		if h.client != nil {
			errs = append(errs, h.client.Close())
		}
	}
	return errors.Join(errs...)
}

// newHandle returns a handle with an error too: the witness is needed, and cannot vote.
func (p *Panel) newHandle(w cluster.Witness) (*Handle, error) {
	h := &Handle{cfg: w, failed: errNotAsked, silent: time.Now()}
	var key witness.Fingerprint
	if err := key.UnmarshalText([]byte(w.Key)); err != nil {
		return h, fmt.Errorf("read the key of the witness %s: %w", w.Addr, err)
	}
	h.client = witness.NewClient(witness.ClientConfig{Addr: w.Addr, Key: key, ID: w.ID, Certificate: p.cfg.Certificate})
	return h, nil
}

func (p *Panel) voters() cluster.Voters { return p.cfg.Book.Config().Voters }

// handles are those of some witnesses, in their order; one that is not in use any more is
// there and does not vote.
func (p *Panel) handles(some []cluster.Witness) []*Handle {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []*Handle
	for _, w := range some {
		h := p.all[w.ID]
		if h == nil {
			h = &Handle{cfg: w, failed: errNotAsked, silent: time.Now()}
		}
		out = append(out, h)
	}
	return out
}

// Active are the voters that engines ask: all of them have to say yes. Ask each time: who votes may change between
// two calls. It does not wait.
func (p *Panel) Active() []*Handle { return p.handles(p.voters().Active) }

// All are the voters and then the spares.
func (p *Panel) All() []*Handle { return p.handles(p.voters().All()) }

// Run greets the witnesses now and then, and replaces a voter that is gone, until ctx ends. It blocks on the network
// for a round; a round begins each helloEvery, or when the voters have changed.
func (p *Panel) Run(ctx context.Context) {
	tick := time.NewTicker(helloEvery)
	defer tick.Stop()
	for {
		p.greetAll(ctx, p.All())
		p.tend(ctx)
		select {
		case <-tick.C:
		case <-p.kick:
		case <-ctx.Done():
			return
		}
	}
}

func (p *Panel) greetAll(ctx context.Context, some []*Handle) {
	var greeted sync.WaitGroup
	for _, h := range some {
		greeted.Go(func() { p.greet(ctx, h) })
	}
	greeted.Wait()
}

// greet keeps the connection warm, notes whether the witness answers, and tells it of the members. A greeting that
// was broken off says nothing.
func (p *Panel) greet(ctx context.Context, h *Handle) {
	if h.client == nil {
		return
	}
	before := h.silentFor() == 0
	callCtx, cancel := context.WithTimeout(ctx, helloTime)
	defer cancel()
	hello, err := h.client.Hello(callCtx)
	if ctx.Err() != nil {
		return
	}
	h.note(err)
	switch {
	case before && witness.Refused(err) != "":
		p.log.Warn("the witness refuses this node", "witness", h.Name(), "said", witness.Refused(err))
	case before && err != nil:
		p.log.Warn("the witness does not answer; nothing stops because of it", "witness", h.Name(), "err", err)
	case !before && err == nil:
		p.log.Info("the witness answers again", "witness", h.Name())
	}
	if err == nil {
		h.greeted(hello.Version)
		p.tell(callCtx, h)
	}
}

// tell reports whether the witness knows all that this node knows.
func (p *Panel) tell(ctx context.Context, h *Handle) bool {
	news, err := h.tell(ctx, p.cfg.Book.Config().Facts())
	if err != nil && news && ctx.Err() == nil {
		p.log.Warn("the witness does not know yet which nodes were removed", "witness", h.Name(), "err", err)
	}
	return err == nil
}

// Forget ends a module at all witnesses, after both nodes dropped it or the other one was removed from the cluster. A
// witness that is away, or does not know of the removal, as one of an older release, remembers it for nothing: votes
// belong to the module's identity. A witness is told of the members first: it must refuse a node that was removed
// before it forgets what it promised to others. All share helloTime.
func (p *Panel) Forget(ctx context.Context, module string) {
	ctx, cancel := context.WithTimeout(ctx, helloTime)
	defer cancel()
	for _, h := range p.All() {
		if h.client == nil || !p.tell(ctx, h) {
			continue
		}
		if err := h.client.ForgetModule(ctx, module); err != nil && !errors.Is(err, context.Canceled) {
			p.log.Warn("the witness still remembers a module that was released", "module", module, "witness", h.Name(), "err",
				err)
		}
	}
}
