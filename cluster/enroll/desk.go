package enroll

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"duet/cluster/ratelimit"
)

// Why a token is refused. The errors that carry them say what to do.
var (
	// ErrUnknown is returned for a token that this desk did not make.
	ErrUnknown = errors.New("token is not known here")
	// ErrUsed is returned for a token that another request has used.
	ErrUsed = errors.New("token was used before")
	// ErrExpired is returned for a token after its time.
	ErrExpired = errors.New("token has expired")
)

// Store keeps the records of a desk. SetTokens replaces all of them and is durable when it
// returns.
type Store interface {
	Tokens() ([]Record, error)
	SetTokens([]Record) error
}

// Config says what a Desk works with.
type Config struct {
	Store  Store
	Prefix string            // of its tokens
	Pin    [sha256.Size]byte // what is behind the door
	Again  string            // how to make another token, for people: "make another with …"
	Now    func() time.Time  // nil means time.Now
}

// Desk makes tokens and takes them back. Its methods may be called by several goroutines and
// take turns.
type Desk struct {
	cfg Config

	mu    sync.Mutex
	brake ratelimit.Brake
}

// NewDesk returns a Desk.
func NewDesk(cfg Config) *Desk {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Desk{cfg: cfg}
}

// NewToken makes a token that is good for life; zero means Life. Only its hash is kept.
func (d *Desk) NewToken(life time.Duration) (Token, error) {
	if life <= 0 {
		life = Life
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	records, err := d.cfg.Store.Tokens()
	if err != nil {
		return Token{}, fmt.Errorf("read tokens: %w", err)
	}
	now := d.cfg.Now()
	t, r := New(d.cfg.Prefix, d.cfg.Pin, now.Add(life))
	if err := d.cfg.Store.SetTokens(append(fresh(records, now), r)); err != nil {
		return Token{}, fmt.Errorf("store token: %w", err)
	}
	return t, nil
}

// Request is somebody who shows a token.
type Request struct {
	Secret []byte
	// Digest names the request: the same one may come again, because its answer can get lost.
	// It is made only once the token is known to be good: the request may be nonsense.
	Digest func() ([]byte, error)
	// May is asked, where the token was not used yet, whether it may be.
	May func() error
	// Do lets the bearer in. The token is marked used, durably, before. It may be called again.
	Do func() error
}

// Redeem takes a token: it counts wrong ones, and lets the bearer of a good one in. May and Do run under the lock of
// the desk, which is held as long as they take. Errors before Do leave the token unused, but for one of the store,
// after which it may be used or not.
func (d *Desk) Redeem(r Request) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	records, i, err := d.find(r.Secret)
	if err != nil {
		return err
	}
	digest, err := r.Digest()
	if err != nil {
		return err
	}
	switch {
	case records[i].used(digest):
	case records[i].UsedBy != nil:
		return fmt.Errorf("%w, and each serves once; %s", ErrUsed, d.cfg.Again)
	default:
		if err := r.May(); err != nil {
			return err
		}
		records[i].UsedBy = digest
		if err := d.cfg.Store.SetTokens(records); err != nil {
			return fmt.Errorf("store token: %w", err)
		}
	}
	return r.Do()
}

// find returns the records and the index of the one of a secret, and counts wrong ones.
func (d *Desk) find(secret []byte) ([]Record, int, error) {
	now := d.cfg.Now()
	if err := d.brake.Check(now); err != nil {
		return nil, 0, err
	}
	records, err := d.cfg.Store.Tokens()
	if err != nil {
		return nil, 0, fmt.Errorf("read tokens: %w", err)
	}
	records = slices.Clone(records)
	i := find(records, secret)
	if i < 0 {
		d.brake.Wrong(now)
		return nil, 0, fmt.Errorf("%w: it works only where it was made; %s", ErrUnknown, d.cfg.Again)
	}
	if !now.Before(records[i].Expires) {
		return nil, 0, fmt.Errorf("%w at %s; %s", ErrExpired, records[i].Expires.Format(time.RFC3339), d.cfg.Again)
	}
	return records, i, nil
}

// Forget drops the token of a request, so that it cannot come again, and then calls do; no token is redeemed
// meanwhile. A nil digest drops none. An error of do comes after the token is gone.
func (d *Desk) Forget(digest []byte, do func() error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	records, err := d.cfg.Store.Tokens()
	if err != nil {
		return fmt.Errorf("read tokens: %w", err)
	}
	rest := slices.DeleteFunc(slices.Clone(records), func(r Record) bool { return r.used(digest) })
	if err := d.cfg.Store.SetTokens(rest); err != nil {
		return fmt.Errorf("store token: %w", err)
	}
	return do()
}
