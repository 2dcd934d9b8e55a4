package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"duet/cluster"
	"duet/cluster/guard"
	"duet/cluster/membership"
	"duet/cluster/mux"
	"duet/cluster/pki"
	"duet/cmd/node"
)

const guardUsage = `duetd guard outlives the daemon: when that dies, or hangs, and is not back before
the peer may start the VMs of this node, it pauses them, and ends them when the
peer has. systemd runs it beside duetd.

`

// runGuard is duetd guard. It is to work when everything else does not: it locks its memory, never waits for who
// reads its log, and reads the node's directory ahead. systemd's watchdog is fed apart from the guarding itself. It
// ends with a signal and leaves the guests, and what it knows of them, to its next run.
func runGuard(args []string) error {
	var dir, run string
	f := flag.NewFlagSet("duetd guard", flag.ContinueOnError)
	f.StringVar(&dir, "dir", "/var/lib/duet", "`directory` of the node's certificates")
	f.StringVar(&run, "run", guard.Dir, "`directory` of its socket and state; it must be in memory")
	f.Usage = func() { fmt.Fprint(f.Output(), guardUsage); f.PrintDefaults() }
	if err := f.Parse(args); err != nil {
		return usageError{err}
	}
	if f.NArg() > 0 {
		return usageError{fmt.Errorf("%q is too much: there are flags (--help shows them)", f.Arg(0))}
	}
	out := newSpout(os.Stderr)
	defer out.close()
	log := slog.New(slog.NewJSONHandler(out, nil))
	slog.SetDefault(log)
	stayInMemory(log)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	var wg sync.WaitGroup
	// Before its socket is open: duetd is started after the guard, and tries the socket again by itself.
	wg.Go(func() { ready(ctx, log) })
	peers := &peers{dir: dir, log: log, soon: make(chan struct{}, 1)}
	peers.met() // at once: the last run may have left guests
	wg.Go(func() { peers.run(ctx) })
	log.Info("guard runs", "dir", run)
	err := guard.Run(ctx, guard.Config{Dir: run, Ask: peers.ask, Met: peers.met, Logger: log})
	stop()
	wg.Wait()
	return err
}

// reread is how often the guard looks whether the cluster has changed: members come and go, certificates are renewed.
const reread = 5 * time.Second

// peers are the other nodes of the cluster, as the node's directory had it last. They are read ahead: a disk that
// hangs later does not matter.
type peers struct {
	dir  string // the node's, of which it needs two things: members and certificate
	log  *slog.Logger
	soon chan struct{} // has a token when that is looked at at once
	seen string        // when the files that were read last, without an error, were written; of run's goroutine

	mu   sync.Mutex
	mux  *mux.Mux // nil: not known yet
	call func(ctx context.Context, peer cluster.NodeID, module string) (guard.Standing, error)
}

// run reads until ctx ends, then closes what it has. It is the one goroutine that reads; a disk that hangs keeps
// it, and nobody else.
func (p *peers) run(ctx context.Context) {
	tick := time.NewTicker(reread)
	defer tick.Stop()
	failed := "" // why it could not be read, as logged
	for {
		select {
		case <-p.soon:
		case <-tick.C:
		case <-ctx.Done():
			p.use(nil, nil)
			return
		}
		now := p.written()
		// Nothing has changed: the disk is left alone but for two calls of stat.
		if now == p.seen {
			continue
		}
		err := p.read()
		// without a cluster there is nobody to ask
		if err == nil || errors.Is(err, membership.ErrNoMember) {
			p.seen, failed = now, ""
			continue
		}
		if err.Error() != failed { // it is tried again and again
			failed = err.Error()
			p.log.Error("the cluster has changed and cannot be read: peers are asked as it was", "err", err)
		}
	}
}

// written tells when what is read was written: files are replaced as a whole, which changes a folder's time too.
// What is not there has no part in it, so that its coming is seen.
func (p *peers) written() string {
	text := ""
	for _, name := range []string{membership.File, pki.Folder} {
		if info, err := os.Stat(filepath.Join(p.dir, name)); err == nil {
			text += info.ModTime().String()
		}
	}
	return text
}

// met has them looked at soon; it never waits.
func (p *peers) met() {
	select {
	case p.soon <- struct{}{}:
	default:
	}
}

// read replaces what is known by what the directory has now; after an error the last is kept. It accepts no
// connection: the mux is not started.
func (p *peers) read() error {
	c, err := membership.Load(p.dir)
	if err != nil {
		return err
	}
	id, err := pki.Read(filepath.Join(p.dir, pki.Folder)) // the daemon renews it; here the directory is read-only
	if err != nil {
		return err
	}
	now := func() cluster.Config { return c }
	p.use(mux.New(mux.Config{Identity: id, Cluster: now, Logger: p.log}), now)
	return nil
}

// use exchanges the mux; nil ends the last one. Calls over the last one end with an error, and are made again.
func (p *peers) use(m *mux.Mux, c func() cluster.Config) {
	p.mu.Lock()
	old := p.mux
	p.mux, p.call = m, nil
	if m != nil {
		p.call = node.Standings(c, m, p.log)
	}
	p.mu.Unlock()
	// Without the lock: it waits for what runs in it, and ask must not.
	if old != nil {
		old.Stop()
	}
}

// ask asks one of them, within ctx, and waits for no disk. It may be called by several goroutines.
func (p *peers) ask(ctx context.Context, peer cluster.NodeID, module string) (guard.Standing, error) {
	p.mu.Lock()
	call := p.call
	p.mu.Unlock()
	if call == nil {
		return guard.Standing{}, errors.New("the cluster is not known: no daemon was there yet")
	}
	s, err := call(ctx, peer, module)
	if err != nil {
		p.met() // it may be known under another address by now
	}
	return s, err
}

// spout is a log that never blocks who writes: what nobody takes for long is lost. The journal may hang with the
// disk, and a guard that waited for it would pause nobody.
type spout struct {
	lines chan []byte   // nil ends it
	ended chan struct{} // closed when the last line is written
}

func newSpout(to io.Writer) *spout {
	s := &spout{lines: make(chan []byte, 512), ended: make(chan struct{})}
	go func() {
		defer close(s.ended)
		for line := range s.lines {
			if line == nil {
				return
			}
			_, _ = to.Write(line) // there is nobody else to tell
		}
	}()
	return s
}

// Write implements io.Writer: one line, whole or not at all. It copies the line, keeps order, and never fails.
func (s *spout) Write(line []byte) (int, error) {
	select {
	case s.lines <- bytes.Clone(line):
	default:
	}
	return len(line), nil
}

// close writes what is left, for a second at most. What is written later is lost.
func (s *spout) close() {
	late := time.After(time.Second)
	select {
	case s.lines <- nil:
	case <-late:
		return // nobody takes anything
	}
	select {
	case <-s.ended:
	case <-late:
	}
}
