package ratelimit

import (
	"errors"
	"fmt"
	"time"
)

const (
	maxTries = 10
	penalty  = time.Minute
)

// ErrTooManyTries is returned while a Brake is on.
var ErrTooManyTries = errors.New("too many wrong tokens")

// Brake slows down whoever guesses secrets: ten wrong ones within a minute close the door for a minute. Its zero
// value is off. One goroutine at a time. It does not tell callers apart: while it is on, right secrets are refused
// too.
type Brake struct {
	wrong   []time.Time // the last wrong tries, oldest first
	refused time.Time   // no tries before this
}

// Check returns ErrTooManyTries while the brake is on.
func (b *Brake) Check(now time.Time) error {
	if now.Before(b.refused) {
		return fmt.Errorf("%w: try again in %d s", ErrTooManyTries, int(b.refused.Sub(now).Seconds())+1)
	}
	return nil
}

// Wrong counts a wrong try.
func (b *Brake) Wrong(now time.Time) {
	b.wrong = append(b.wrong, now)
	if len(b.wrong) < maxTries {
		return
	}
	if now.Sub(b.wrong[0]) <= penalty {
		b.refused, b.wrong = now.Add(penalty), nil
		return
	}
	b.wrong = b.wrong[1:]
}
