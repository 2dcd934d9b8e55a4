package blockrepl

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
)

// pipe is a slog.Handler that takes records only while it is open.
type pipe struct {
	mu    sync.Mutex
	shut  chan struct{} // not nil: it is full
	lines []string
}

func (p *pipe) Enabled(context.Context, slog.Level) bool { return true }
func (p *pipe) WithAttrs([]slog.Attr) slog.Handler       { return p }
func (p *pipe) WithGroup(string) slog.Handler            { return p }

func (p *pipe) Handle(_ context.Context, r slog.Record) error {
	if p.shut != nil {
		<-p.shut
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	line := r.Message
	r.Attrs(func(a slog.Attr) bool { line += fmt.Sprint(" ", a); return true })
	p.lines = append(p.lines, line)
	return nil
}

// A log that nobody reads holds up no volume; what was said is told in order when it is
// read again, and what was too much is counted.
func TestLogThatIsStuck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stuck := &pipe{shut: make(chan struct{})}
		q := newPair(t, 8<<20)
		q.logger = slog.New(stuck)
		q.up()
		q.write(0, fill(1, 512))
		q.lose()
		if err := q.p.GoAlone(2); err != nil {
			t.Fatal(err)
		}
		q.write(0, fill(2, 512))
		q.p.Close()
		log := unhurried(slog.New(stuck))
		for i := range maxJournal + 10 {
			log.Info("line", "n", i)
			if i == 0 {
				synctest.Wait() // the taker has it, and is stuck
			}
		}
		close(stuck.shut)
		synctest.Wait()
		log.Info("line", "n", "last")
		synctest.Wait()
		stuck.mu.Lock()
		defer stuck.mu.Unlock()
		last, n := stuck.lines[len(stuck.lines)-1], 0
		for _, line := range stuck.lines {
			if line == fmt.Sprint("line n=", n) {
				n++
			}
		}
		if n != maxJournal+1 || last != "line n=last records_dropped_before=9" {
			t.Errorf("%d lines in order, the last is %q", n, last)
		}
		q.stop()
	})
}
