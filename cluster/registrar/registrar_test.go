package registrar

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"duet/cluster"
	"duet/cluster/membership"
	"duet/cluster/pki"
	"duet/console/api"
)

// notes are a Store in memory.
type notes map[string][]byte

func (n notes) Load(key string, v any) (bool, error) {
	b, ok := n[key]
	if !ok {
		return false, nil
	}
	return true, json.Unmarshal(b, v)
}

func (n notes) Save(key string, v any) (err error) {
	n[key], err = json.Marshal(v)
	return err
}

// office is a registrar of alpha, with beta and gamma.
type office struct {
	*Registrar
	book    *membership.Book
	alive   []cluster.NodeID
	updates int
	mu      sync.Mutex
	calls   []string         // "node path"
	wait    bool             // calls end with their context
	broken  error            // of updates
	answers map[string]error // to calls of a path
}

func newOffice(t *testing.T) *office {
	t.Helper()
	dir := t.TempDir()
	id, err := pki.Init(dir, "office", "alpha")
	must(t, err)
	must(t, membership.Save(dir, cluster.Config{Name: "office", Self: "alpha", Port: 7420,
		GossipKeys: [][]byte{make([]byte, 32)},
		Members:    []cluster.Member{{Node: "alpha"}, {Node: "beta"}, {Node: "gamma"}}}))
	o := &office{answers: map[string]error{}}
	o.book, err = membership.Open(dir)
	must(t, err)
	o.Registrar = New(Config{Book: o.book, Identity: id, Store: notes{}, Logger: slog.New(slog.DiscardHandler),
		Alive:  func(node cluster.NodeID) bool { return slices.Contains(o.alive, node) },
		Update: func() error { o.updates++; return o.broken },
		With:   func(cluster.NodeID) []string { return []string{"web01"} },
		Call: func(ctx context.Context, node cluster.NodeID, path string, in, out any) error {
			o.mu.Lock()
			defer o.mu.Unlock()
			o.calls = append(o.calls, string(node)+" "+path)
			if o.wait {
				o.mu.Unlock()
				<-ctx.Done()
				o.mu.Lock()
			}
			if x, ok := out.(*cluster.Exchange); ok {
				*x = in.(cluster.Exchange)
			}
			return o.answers[path]
		}})
	return o
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// members are who is in the cluster.
func (o *office) members() string {
	var out []string
	for _, m := range o.book.Config().Members {
		out = append(out, string(m.Node))
	}
	return strings.Join(out, " ")
}

// did fails unless those calls were made, and heartbeats followed so often.
func (o *office) did(t *testing.T, what string, updates int, calls ...string) {
	t.Helper()
	if !slices.Equal(o.calls, calls) || o.updates != updates {
		t.Errorf("%s: %q and %d updates, want %q and %d", what, o.calls, o.updates, calls, updates)
	}
	o.calls, o.updates = nil, 0
}

// TestAdmit: a new node is stored, the heartbeats know it, and all others are told.
func TestAdmit(t *testing.T) {
	o := newOffice(t)
	o.answers["members"] = errors.New("it is away") // and learns it later
	c, err := o.admit(t.Context(), cluster.Member{Node: "delta", Addrs: map[string]string{"hb1": "10.0.0.4"}})
	if _, ok := c.Member("delta"); err != nil || !ok || o.members() != "alpha beta gamma delta" {
		t.Errorf("members are %q, %v", o.members(), err)
	}
	slices.Sort(o.calls) // they are told at once
	o.did(t, "an admission", 1, "beta members", "gamma members")
	o.broken = errors.New("no such address")
	_, err = o.admit(t.Context(), cluster.Member{Node: "eps", Addrs: map[string]string{"hb1": "10.0.0.5"}})
	if !errors.Is(err, o.broken) || !strings.Contains(err.Error(), "duet cluster remove eps") {
		t.Errorf("heartbeats that do not follow: %v", err)
	}
}

// TestAdmitWhileAllAreAway: the newcomer waits once, and not for each member that is away.
func TestAdmitWhileAllAreAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOffice(t)
		o.wait = true
		began := time.Now()
		_, err := o.admit(t.Context(), cluster.Member{Node: "delta", Addrs: map[string]string{"hb1": "10.0.0.4"}})
		if took := time.Since(began); err != nil || took != tellTime || len(o.calls) != 2 {
			t.Errorf("%v after %v and %q", err, took, o.calls)
		}
	})
}

// TestRemoveNode: only another node that is silent is removed, and the others are told in the words of their release.
func TestRemoveNode(t *testing.T) {
	o := newOffice(t)
	o.alive = []cluster.NodeID{"gamma"}
	for node, want := range map[string]error{"delta": api.ErrNotFound, "alpha": api.ErrConflict,
		"gamma": api.ErrConflict} {
		if _, err := o.RemoveNode(t.Context(), node); !errors.Is(err, want) {
			t.Errorf("removal of %s: %v, want %v", node, err, want)
		}
	}
	o.did(t, "what is refused", 0)
	_, err := o.book.Change(func(c *cluster.Config) bool {
		c.Fence = map[cluster.NodeID]json.RawMessage{"beta": json.RawMessage(`[]`)}
		return true
	})
	must(t, err)
	o.answers["members/meet"] = cluster.ErrOlder
	gone, err := o.RemoveNode(t.Context(), "beta")
	if err != nil || gone.Node != "beta" || !slices.Equal(gone.Modules, []string{"web01"}) ||
		!strings.Contains(gone.Keeps, "authority") || !strings.Contains(gone.Keeps, "cluster rejoin") ||
		strings.Index(gone.Keeps, "cluster rejoin") > strings.Index(gone.Keeps, "wipe") ||
		!strings.Contains(gone.Keeps, "fence devices are forgotten") ||
		o.members() != "alpha gamma" {
		t.Errorf("%+v, %v; members are %q", gone, err, o.members())
	}
	o.did(t, "a removal", 1, "gamma members/meet", "gamma members/beta/remove")
	if missed := o.Missed(); len(missed) != 1 || missed[0].Name != "beta" || missed[0].At == nil || missed[0].At.IsZero() {
		t.Errorf("it is not said who was removed, and when: %+v", missed)
	}
}

// TestLearn: what others know is taken over, once; heartbeats follow when it is news.
func TestLearn(t *testing.T) {
	o := newOffice(t)
	must(t, o.Gone("gamma"))
	if o.members() != "alpha beta" {
		t.Errorf("members are %q", o.members())
	}
	o.did(t, "news", 1)
	x, err := o.Met(o.book.Config().Exchange())
	if err != nil || len(x.Facts) != len(o.book.Config().Exchange().Facts) {
		t.Errorf("it answers %+v, %v", x, err)
	}
	o.did(t, "nothing new", 0)
}

// TestMeet: the nodes exchange what they know every few seconds, and at once while there is news.
func TestMeet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOffice(t)
		o.alive = []cluster.NodeID{"beta", "gamma"}
		ctx, cancel := context.WithTimeout(t.Context(), meetEvery+meetEvery/2)
		defer cancel()
		o.Meet(ctx)
		o.did(t, "two rounds", 0, "beta members/meet", "gamma members/meet", "beta members/meet", "gamma members/meet")
		o.answers["members/meet"] = errors.New("it is away")
		ctx, cancel = context.WithTimeout(t.Context(), meetEvery/2)
		defer cancel()
		o.Meet(ctx)
		o.did(t, "with nodes that are away", 0, "beta members/meet", "gamma members/meet")
	})
}

// TestToken: a token lives as long as it is said, is durable, and one that makes no sense is as long as any.
func TestToken(t *testing.T) {
	o := newOffice(t)
	for _, life := range []time.Duration{0, -time.Second, time.Minute} {
		before := time.Now()
		token, err := o.NewToken(t.Context(), life)
		if err != nil || token.Token == "" || token.Expires.Before(before.Add(max(life, time.Second))) {
			t.Errorf("for %s: %+v, %v", life, token, err)
		}
	}
	if kept, err := (tokens{o.cfg.Store}).Tokens(); err != nil || len(kept) != 3 {
		t.Errorf("%d tokens are kept, %v", len(kept), err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	must(t, ln.Close())
	_ = o.Serve(ctx, ln) // it returns
}

// TestSetPing: new ping targets are stored and told; who does not know them yet is named. What nobody could ask is
// refused, as at init.
func TestSetPing(t *testing.T) {
	o := newOffice(t)
	for _, bad := range [][]string{{"gw.example.com"}, {"10.0.0.254", ""}, slices.Repeat([]string{"10.0.0.254"}, 17)} {
		if _, err := o.SetPing(t.Context(), bad); !errors.Is(err, api.ErrInvalid) || len(o.calls) > 0 {
			t.Errorf("%q: %v, told %q", bad, err, o.calls)
		}
	}
	for _, targets := range [][]string{{"10.0.0.254", "fd00::1"}, nil} {
		st, err := o.SetPing(t.Context(), targets)
		if err != nil || len(st.Unaware) > 0 || !slices.Equal(o.book.Config().Ping, targets) {
			t.Errorf("%q: %+v, %v", targets, st, err)
		}
		if st, err = o.PingTargets(t.Context()); err != nil || st.Targets == nil || !slices.Equal(st.Targets, targets) {
			t.Errorf("%q: shown are %+v, %v", targets, st, err)
		}
	}
	if len(o.calls) != 4 || !slices.Contains(o.calls, "gamma members/meet") {
		t.Errorf("told %q", o.calls)
	}
	o.answers["members/meet"] = errors.New("it is away")
	st, err := o.SetPing(t.Context(), []string{"10.0.0.253"})
	if err != nil || !slices.Equal(st.Unaware, []string{"beta", "gamma"}) {
		t.Errorf("while all are away: %+v, %v", st, err)
	}
}
