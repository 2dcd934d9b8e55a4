package guard

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"duet/cluster"
)

const (
	look     = 20 * time.Millisecond // between two looks at the guests' deadlines
	askEvery = time.Second           // between two questions to a peer about one guest
)

// Config is what a guard is made of. All fields are needed.
type Config struct {
	Dir string // of its socket and its state
	// Ask asks the peer how it stands with a module. It returns when ctx ends at the latest.
	Ask func(ctx context.Context, peer cluster.NodeID, module string) (Standing, error)
	// Met is called each time a daemon connects: what Ask needs may have changed. It must not block.
	Met func()
	// Logger must not block.
	Logger *slog.Logger
}

// guard is one run; its fields belong to the goroutine of Run.
type guard struct {
	Config
	roster *roster
	open   map[string]*process      // by module: of each guest of the roster
	asked  map[string]time.Duration // when its peer was asked last, by module
	words  chan heard               // from listen
	news   chan answer              // from ask
	others sync.WaitGroup           // goroutines of listen and ask
	fault  string                   // why the state cannot be saved, as logged
	faults map[string]string        // by module: what cannot be done with its guest, as logged
}

// heard is a word that waits for its answer.
type heard struct {
	Word
	answer chan Report
}

// answer is what a peer said about a guest.
type answer struct {
	about Guest
	Standing
	err error
}

// Run guards until ctx ends. It leaves the guests as they are; what it knows stays in the directory for the next
// run. An error means that it never began. It fails if another guard runs in the directory. It blocks on no disk:
// the directory is to be in memory.
func Run(ctx context.Context, c Config) error {
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return fmt.Errorf("make directory of the guard: %w", err)
	}
	held, err := lock(c.Dir)
	if err != nil {
		return err
	}
	defer held.Close()
	g := &guard{Config: c, open: map[string]*process{}, asked: map[string]time.Duration{}, faults: map[string]string{},
		words: make(chan heard), news: make(chan answer)}
	g.load()
	if err := os.Remove(Socket(c.Dir)); err != nil && !errors.Is(err, fs.ErrNotExist) { // of a run that was killed
		return fmt.Errorf("listen to the daemon: %w", err)
	}
	ln, err := net.Listen("unix", Socket(c.Dir))
	if err != nil {
		return fmt.Errorf("listen to the daemon: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	served := make(chan struct{})
	go func() {
		defer close(served)
		g.serve(ctx, ln)
	}()
	g.guard(ctx)
	cancel()
	_ = ln.Close() // nothing is accepted any more
	<-served
	g.others.Wait()
	for _, p := range g.open {
		p.close()
	}
	return nil
}

// guard is the loop. It waits for nothing but its channels and the kernel, so a deadline is at most look late, and
// the time of a word.
func (g *guard) guard(ctx context.Context) {
	tick := time.NewTicker(look)
	defer tick.Stop()
	for {
		select {
		case w := <-g.words:
			g.hear(w)
		case a := <-g.news:
			g.learn(a)
		case <-tick.C:
			g.sweep()
			g.carryOut(g.roster.late(Now()))
			g.ask(ctx)
		case <-ctx.Done():
			return
		}
	}
}

// hear answers only after the signals were sent and the state was written.
func (g *guard) hear(w heard) {
	do := g.roster.hear(w.Word)
	maps.DeleteFunc(g.faults, func(module, _ string) bool {
		return !slices.ContainsFunc(w.Guests, func(told Guest) bool { return told.Module == module })
	})
	g.hold()
	g.carryOut(do)
	g.save()
	w.answer <- g.roster.report()
}

// hold opens the processes of guests that are new, and lets go those of guests that are not guarded any more. A
// guest that cannot be held is forgotten at once, so that every order finds its process. The next word brings it
// again.
func (g *guard) hold() {
	for module, p := range g.open {
		if h := g.roster.guests[module]; h == nil || h.PID != p.pid || h.Start != p.start {
			p.close()
			delete(g.open, module)
		}
	}
	for _, h := range g.roster.sorted() {
		if g.open[h.Module] != nil {
			continue
		}
		p, err := openProcess(h.PID, h.Start)
		if err != nil {
			if !errors.Is(err, errGone) {
				g.failed("a guest is not guarded", h.Module, err)
			}
			delete(g.roster.guests, h.Module)
			continue
		}
		g.open[h.Module] = p
		delete(g.faults, h.Module)
	}
}

// failed logs what cannot be done with a guest, once while it stays the same: it is tried again many times a second.
func (g *guard) failed(what, module string, err error) {
	if text := what + ": " + err.Error(); g.faults[module] != text {
		g.faults[module] = text
		g.Logger.Error(what, "module", module, "err", err)
	}
}

// sweep forgets guests whose processes have ended.
func (g *guard) sweep() {
	gone := false
	for module, p := range g.open {
		if p.ended() {
			g.Logger.Info("the guest has ended", "module", module, "pid", p.pid)
			p.close()
			delete(g.open, module)
			delete(g.roster.guests, module)
			gone = true
		}
	}
	if gone {
		g.save()
	}
}

var reasons = [...]string{
	pause:  "the guest is paused: the daemon has not vouched for it in time, and its peer may take over soon",
	resume: "the guest goes on: the daemon vouches that the right is here",
	end:    "the guest is ended: its peer holds a newer epoch",
}

// carryOut sends the signals, and only then says so. After one that fails the guest counts as it was before, so that
// it is ordered again: at the next look, word or answer.
func (g *guard) carryOut(do []order) {
	for _, o := range do {
		p := g.open[o.guest.Module]
		if p == nil {
			continue
		}
		if err := p.do(o.do); err != nil {
			g.failed("that failed: "+reasons[o.do], o.guest.Module, err)
			g.roster.undone(o)
			continue
		}
		delete(g.faults, o.guest.Module)
		g.Logger.Warn(reasons[o.do], "module", o.guest.Module, "vm", o.guest.VM, "pid", p.pid, "epoch", o.guest.Epoch)
	}
	if len(do) > 0 {
		g.save()
	}
}

// ask asks about each doubtful guest, one question at a time. The question runs beside the loop, which may hear of
// another right meanwhile: roster.learn compares.
func (g *guard) ask(ctx context.Context) {
	now := Now()
	maps.DeleteFunc(g.asked, func(module string, _ time.Duration) bool { return g.roster.guests[module] == nil })
	for _, h := range g.roster.doubtful(now) {
		if last, ok := g.asked[h.Module]; ok && now-last < askEvery {
			continue
		}
		g.asked[h.Module] = now
		about := h.Guest
		g.others.Go(func() {
			short, cancel := context.WithTimeout(ctx, askEvery*9/10)
			defer cancel()
			s, err := g.Ask(short, about.Peer, about.Module)
			select {
			case g.news <- answer{about, s, err}:
			case <-ctx.Done():
			}
		})
	}
}

// learn takes the answer of a peer. No answer changes nothing: the guest stays as it is.
func (g *guard) learn(a answer) {
	if a.err != nil {
		g.Logger.Info("the peer does not say who has the right", "module", a.about.Module, "peer", a.about.Peer, "err", a.err)
		return
	}
	g.carryOut(g.roster.learn(a.about, a.Standing))
}

// serve listens to daemons until ln is closed. There is one; another one that connects counts as well, as each of its
// words.
func (g *guard) serve(ctx context.Context, ln net.Listener) {
	for {
		conn, err := ln.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			g.Logger.Error("the daemon cannot be listened to", "err", err)
			select {
			case <-time.After(look):
			case <-ctx.Done():
			}
			continue
		}
		g.Met()
		g.others.Go(func() { g.listen(ctx, conn) })
	}
}

// listen takes the words of one connection, one after the other. Its end says nothing: what counts is what was said.
func (g *guard) listen(ctx context.Context, conn net.Conn) {
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	limited := &io.LimitedReader{R: conn}
	in, out := json.NewDecoder(limited), json.NewEncoder(conn)
	for {
		limited.N = maxWord
		w := heard{answer: make(chan Report, 1)}
		if in.Decode(&w.Word) != nil {
			return
		}
		select {
		case g.words <- w:
		case <-ctx.Done():
			return
		}
		if out.Encode(<-w.answer) != nil {
			return
		}
	}
}

// state is the file that outlives a run.
type state struct {
	Guests []held `json:"guests"`
}

func (g *guard) file() string { return filepath.Join(g.Dir, "guests.json") }

// load takes up what the last run was told. A file that does not parse is as good as none.
func (g *guard) load() {
	var s state
	b, err := os.ReadFile(g.file())
	if err == nil {
		err = json.Unmarshal(b, &s)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		g.Logger.Error("what the last guard knew is lost", "err", err)
	}
	g.roster = newRoster(Now(), s.Guests)
	g.hold()
	for _, h := range g.roster.sorted() {
		// A daemon that had no guard may have let it go on.
		h.Paused = h.Paused && g.open[h.Module].stopped()
		g.Logger.Info("a guest of the last run is guarded on", "module", h.Module, "pid", h.PID, "paused", h.Paused)
	}
}

// save writes what is known; it is memory, so it does not wait for a disk. A guard that is killed between a signal
// and this finds the guest as it was before: load asks the process whether it is stopped, and a deadline that has
// passed pauses it again.
func (g *guard) save() {
	s := state{Guests: []held{}}
	for _, h := range g.roster.sorted() {
		s.Guests = append(s.Guests, *h)
	}
	b, err := json.Marshal(s)
	if err == nil {
		err = os.WriteFile(g.file()+".new", b, 0o600)
	}
	if err == nil {
		err = os.Rename(g.file()+".new", g.file())
	}
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text != g.fault && err != nil {
		g.Logger.Error("what the guard knows would be lost with it", "err", err)
	}
	g.fault = text
}
