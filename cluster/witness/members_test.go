package witness

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strings"
	"testing"
	"testing/synctest"

	"duet/cluster"
)

func keyOf(spki []byte) string {
	sum := sha256.Sum256(spki)
	return hex.EncodeToString(sum[:])
}

// TestRemovedNode: the certificate of a node that was removed opens nothing any more, also after
// a restart of the witness; a new computer under its name is another one.
func TestRemovedNode(t *testing.T) {
	b := newBench(t)
	c := b.town()
	ctx := t.Context()
	alpha := c.client("alpha", "")
	old, anew := c.ca.node(t, "beta", nil), c.ca.node(t, "beta", nil)
	beta, fresh := c.clientWith(old, ""), c.clientWith(anew, "")
	mustAsk(t, alpha, ask("alpha", 2, 1), true, "")
	gone := cluster.Fact{Member: cluster.Member{Node: "beta", Since: 2}, Gone: true}
	if err := alpha.TellMembers(ctx, []cluster.Fact{gone}); err != nil {
		t.Fatal(err)
	}
	refused := func(who *Client) {
		t.Helper()
		_, err := who.Ask(ctx, ask("beta", 3, 2))
		_, hello := who.Hello(ctx)
		for _, err := range []error{err, hello, who.ForgetModule(ctx, "web01"), who.TellMembers(ctx, nil)} {
			if !errors.Is(err, ErrRemoved) {
				t.Errorf("a removed node is answered: %v", err)
			}
			if said := Refused(err); !strings.HasPrefix(said, ErrRemoved.Error()+": ") {
				t.Errorf("the words of the witness: %q of %v", said, err)
			}
		}
	}
	refused(beta)
	if said := Refused(errors.New("no route to host")); said != "" {
		t.Errorf("a witness that is silent says %q", said)
	}
	b.restart()
	refused(beta)
	back := cluster.Fact{Member: cluster.Member{Node: "beta", Since: 3, Key: keyOf(anew.Leaf.RawSubjectPublicKeyInfo)}}
	if err := alpha.TellMembers(ctx, []cluster.Fact{back, gone}); err != nil { // late news changes nothing
		t.Fatal(err)
	}
	refused(beta)
	mustAsk(t, fresh, ask("beta", 3, 2), true, "")
	if err := alpha.TellMembers(ctx, []cluster.Fact{{Member: cluster.Member{Node: "../x", Since: 9}}}); !errors.Is(err,
		ErrBadRequest) {
		t.Errorf("a node that has no name: %v", err)
	}
	if err := b.srv.Forget(c.id); err != nil {
		t.Fatal(err)
	}
	if left, _ := b.store.Keys(memberPrefix); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

// TestRemovedMeanwhile: a node that is removed after its call began, but before it counts, changes nothing any more.
func TestRemovedMeanwhile(t *testing.T) {
	srv, err := New(Config{Dir: t.TempDir(), Store: newMemory()})
	if err != nil {
		t.Fatal(err)
	}
	tn := newTenant(clusterRecord{}, newAuthority(t).cert)
	alpha, beta := party{tn, "alpha", "a"}, party{tn, "beta", "b"}
	if err := beta.admitted(); err != nil { // its call begins
		t.Fatal(err)
	}
	fact := func(node cluster.NodeID) []cluster.Fact {
		return []cluster.Fact{{Member: cluster.Member{Node: node, Since: 2}, Gone: true}}
	}
	if err := srv.learn(alpha, fact("beta")); err != nil {
		t.Fatal(err)
	}
	_, asks := srv.ask(beta, ask("beta", 1, 0))
	for what, err := range map[string]error{"asks": asks, "forgets": srv.forgetModule(beta, "web01"),
		"tells": srv.learn(beta, fact("alpha"))} {
		if !errors.Is(err, ErrRemoved) {
			t.Errorf("it %s: %v", what, err)
		}
	}
}

// TestManyMembers: as many nodes as a witness remembers can be told, however long their names are.
func TestManyMembers(t *testing.T) {
	b := newBench(t)
	c := b.town()
	alpha := c.client("alpha", "")
	var facts []cluster.Fact
	for i := range maxFacts {
		name := fmt.Sprintf("%s%04d", strings.Repeat("n", 59), i)
		facts = append(facts, cluster.Fact{Gone: true, Member: cluster.Member{Node: cluster.NodeID(name),
			Addrs: map[string]string{"hb1": "10.0.0.1"}, Key: keyOf([]byte(name)), Since: math.MaxUint64 - 1}})
	}
	if err := alpha.TellMembers(t.Context(), facts); err != nil {
		t.Fatal(err)
	}
	if got, _ := b.store.Keys(memberPrefix); len(got) != maxFacts || facts[0].Addrs == nil {
		t.Errorf("it knows %d; the caller has %+v", len(got), facts[0])
	}
	one := cluster.Fact{Member: cluster.Member{Node: "one-too-many", Since: 1}}
	if err := alpha.TellMembers(t.Context(), append(facts, one)); !errors.Is(err, ErrFull) {
		t.Errorf("one more: %v", err)
	}
}

// stuckLog is a log that nobody reads.
type stuckLog struct {
	slog.Handler
	wait chan struct{}
}

func (stuckLog) Enabled(context.Context, slog.Level) bool { return true }

func (l stuckLog) Handle(context.Context, slog.Record) error { <-l.wait; return nil }

// TestNobodyWaitsForTheLog: a vote whose line cannot be written holds up no other vote.
func TestNobodyWaitsForTheLog(t *testing.T) {
	dir := t.TempDir()
	ca := newAuthority(t)
	synctest.Test(t, func(t *testing.T) {
		wait := make(chan struct{})
		srv, err := New(Config{Dir: dir, Store: newMemory()})
		if err != nil {
			t.Fatal(err)
		}
		alpha := party{newTenant(clusterRecord{}, ca.cert), "alpha", ""}
		srv.log = slog.New(stuckLog{slog.DiscardHandler, wait})
		answered := make(chan error, 3)
		go func() { _, err := srv.ask(alpha, ask("alpha", 1, 0)); answered <- err }()
		go func() { answered <- srv.forgetModule(alpha, "web02") }()
		synctest.Wait() // both wait for the log
		if _, err := srv.askOnce(alpha, ask("alpha", 1, 0)); err != nil {
			t.Error(err)
		}
		if !alpha.forgetting.TryLock() {
			t.Error("a vote waits for the log under its lock")
		} else {
			alpha.forgetting.Unlock()
		}
		close(wait)
		for range 2 {
			if err := <-answered; err != nil {
				t.Error(err)
			}
		}
	})
}
