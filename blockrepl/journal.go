package blockrepl

import (
	"context"
	"log/slog"
	"slices"
	"sync"
)

// maxJournal bounds the records that wait to be logged.
const maxJournal = 1000

// journal is a slog.Handler that never waits for whoever takes the log, so that it may be
// used with a lock held: records are handed on, in order, by a goroutine that exists only
// while there are some. If the taker is stuck, what is beyond maxJournal is dropped.
type journal struct {
	next slog.Handler
	*backlog
}

// backlog is shared by a journal and those made of it by WithAttrs and WithGroup.
type backlog struct {
	mu      sync.Mutex
	records []record
	running bool
	dropped int
}

type record struct {
	to slog.Handler
	slog.Record
}

// unhurried returns a logger like l that never makes its caller wait; nil discards.
func unhurried(l *slog.Logger) *slog.Logger {
	if l == nil {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(&journal{l.Handler(), &backlog{}})
}

func (j *journal) Enabled(ctx context.Context, level slog.Level) bool {
	return j.next.Enabled(ctx, level)
}

func (j *journal) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &journal{j.next.WithAttrs(attrs), j.backlog}
}

func (j *journal) WithGroup(name string) slog.Handler {
	return &journal{j.next.WithGroup(name), j.backlog}
}

func (j *journal) Handle(_ context.Context, r slog.Record) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.records) == maxJournal {
		j.dropped++
		return nil
	}
	if j.dropped > 0 {
		r = r.Clone()
		r.AddAttrs(slog.Int("records_dropped_before", j.dropped))
		j.dropped = 0
	}
	j.records = append(j.records, record{j.next, r})
	if !j.running {
		j.running = true
		go j.run()
	}
	return nil
}

func (b *backlog) run() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for len(b.records) > 0 {
		r := b.records[0]
		b.records = slices.Delete(b.records, 0, 1)
		b.mu.Unlock()
		_ = r.to.Handle(context.Background(), r.Record) // there is nobody to tell
		b.mu.Lock()
	}
	b.running = false
}
