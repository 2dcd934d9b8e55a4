package voting

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"time"

	"duet/cluster"
	"duet/cluster/witness"
)

const (
	helloEvery = 5 * time.Second // keeps the connection warm: a vote then costs one round trip
	helloTime  = 2 * time.Second // for one greeting
)

// Handle is a witness as this node reaches it. An engine asks it for its vote. Any number of goroutines may use it.
// It stays the same while its registration does, so it may be a key in a map (engine.Engine.informed).
type Handle struct {
	cfg    cluster.Witness
	client *witness.Client // nil: this node cannot use it

	mu       sync.Mutex
	failed   error     // of the last call
	answered time.Time // when it did last; zero: never
	silent   time.Time // since when no call succeeds; zero: it answers
	since    time.Time // the same for people: the last answer, which was before the first call that failed

	telling sync.Mutex     // one tell at a time
	told    []cluster.Fact // nil: nothing yet
	release string         // of the witness, as it said last
	older   error          // why that release cannot be told; nil: it can
}

// errNotAsked is the state of a witness that was not greeted yet.
var errNotAsked = errors.New("it was not asked yet")

// Witness is how it is configured.
func (h *Handle) Witness() cluster.Witness { return h.cfg }

// Name is its address, by which admins know it.
func (h *Handle) Name() string { return h.cfg.Addr }

// Ask asks for its vote. One that this node cannot use does not vote, and is needed all the same. It blocks until
// the witness answers or ctx ends; an error is no vote, neither yes nor no.
func (h *Handle) Ask(ctx context.Context, a cluster.Ask) (cluster.Answer, error) {
	if h.client == nil {
		return cluster.Answer{}, errors.New("this node cannot use it")
	}
	ans, err := h.client.Ask(ctx, a)
	if !errors.Is(context.Cause(ctx), context.Canceled) { // who has given up says nothing of the witness
		h.note(err)
	}
	return ans, err
}

// note keeps the instant of the first failure in a row.
func (h *Handle) note(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.failed = err
	switch {
	case err == nil:
		h.answered, h.silent = time.Now(), time.Time{}
	case h.silent.IsZero():
		h.silent = time.Now()
		h.since = h.silent
		// It is asked every few seconds: it may have been gone all that time. A refusal is an answer.
		if !h.answered.IsZero() && witness.Refused(err) == "" {
			h.since = h.answered
		}
	}
}

// Silent is since when it has not answered, that is its last answer, and why; zero and nil: it does.
func (h *Handle) Silent() (time.Time, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.silent.IsZero() {
		return time.Time{}, h.failed
	}
	return h.since, h.failed
}

// Why is in words for an admin why it does not answer; empty: it does.
func (h *Handle) Why() string {
	switch _, err := h.Silent(); {
	case err == nil:
		return ""
	case errors.Is(err, errNotAsked):
		return err.Error()
	default:
		return witness.Words(err)
	}
}

// silentFor is how long calls have failed; 0: they do not. It counts from the first that did: what follows from it
// takes more than one.
func (h *Handle) silentFor() time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.failed == nil {
		return 0
	}
	return max(time.Since(h.silent), 1)
}

// greeted notes which release the witness is of: another one may know what the last did not, or have forgotten.
func (h *Handle) greeted(release string) {
	h.telling.Lock()
	defer h.telling.Unlock()
	if release != h.release {
		h.release, h.told, h.older = release, nil, nil
	}
}

// tell has the witness know who is a member, unless it was told before. One of an older release knows no members: it
// goes on to answer those that were removed, and is told again when it is of another release. news is false for an
// error that was returned before. A restart of this node tells again, which changes nothing there.
func (h *Handle) tell(ctx context.Context, facts []cluster.Fact) (news bool, _ error) {
	h.telling.Lock()
	defer h.telling.Unlock()
	if reflect.DeepEqual(facts, h.told) {
		return false, h.older
	}
	err := h.client.TellMembers(ctx, facts)
	if errors.Is(err, witness.ErrBadRequest) {
		h.told, h.older = facts, fmt.Errorf("tell the witness %s of the members: its release knows none, update it: %w",
			h.cfg.Addr, err)
		return true, h.older
	}
	if err != nil {
		return true, fmt.Errorf("tell the witness %s of the members: %w", h.cfg.Addr, err)
	}
	h.told, h.older = facts, nil
	return true, nil
}
