package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"duet/cluster"
	"duet/cluster/membership"
	"duet/cluster/mux"
)

// TestWorkOutlivesItsCaller: who calls gives up, and what was begun for it goes on, within bounds.
func TestWorkOutlivesItsCaller(t *testing.T) {
	begun, gone, goOn := make(chan struct{}), make(chan struct{}), make(chan struct{})
	ended := make(chan error, 1)
	p := New(Config{Logger: slog.New(slog.DiscardHandler)})
	work := Handle(p, func(ctx context.Context, _ any) (struct{}, error) {
		if until, bounded := ctx.Deadline(); !bounded || time.Until(until) > workTime {
			t.Errorf("it may take until %v", until)
		}
		close(begun)
		<-goOn
		ended <- ctx.Err()
		return struct{}{}, nil
	})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		context.AfterFunc(r.Context(), func() { close(gone) })
		work.ServeHTTP(w, r)
	}))
	defer srv.Close()
	ctx, giveUp := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, srv.URL, strings.NewReader("null"))
	if err != nil {
		t.Fatal(err)
	}
	left := make(chan struct{})
	go func() {
		defer close(left)
		if resp, err := srv.Client().Do(req); err == nil {
			_ = resp.Body.Close()
			t.Error("an answer although nobody waits for one")
		}
	}()
	<-begun
	giveUp()
	<-left
	<-gone
	close(goOn)
	if err := <-ended; err != nil {
		t.Errorf("the work was called off with its caller: %v", err)
	}
}

// roundTripper answers every call with an error.
type roundTripper struct{ err error }

func (r *roundTripper) RoundTrip(*http.Request) (*http.Response, error) {
	if r.err != nil {
		return nil, r.err
	}
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{header: {cluster.Current.String()}},
		Body: io.NopCloser(strings.NewReader("null"))}, nil
}

// told is a transport to nodes of a release, which notes that of the caller.
type told struct{ theirs, mine string }

func (r *told) RoundTrip(q *http.Request) (*http.Response, error) {
	r.mine = q.Header.Get(releaseHeader)
	resp, err := (&roundTripper{}).RoundTrip(q)
	if r.theirs != "" {
		resp.Header.Set(releaseHeader, r.theirs)
	}
	return resp, err
}

// TestRelease: each side tells the build of its program; that of a node is known as long as it tells it, and is short.
func TestRelease(t *testing.T) {
	net := &told{}
	p := New(Config{Logger: slog.New(slog.DiscardHandler), Transport: net, Release: "0.9",
		Cluster: func() cluster.Config { return cluster.Config{Self: "alpha"} }})
	for _, c := range []struct{ theirs, want string }{{"", ""}, {"1.0", "1.0"}, {strings.Repeat("x", 100),
		strings.Repeat("x", maxRelease)}, {"", ""}} {
		net.theirs = c.theirs
		if err := p.Call(t.Context(), "beta", "version", nil, nil); err != nil || p.Release("beta") != c.want ||
			net.mine != "0.9" || p.Release("alpha") != "0.9" {
			t.Errorf("%q: %q of beta, %q of alpha; told %q; %v", c.theirs, p.Release("beta"), p.Release("alpha"), net.mine, err)
		}
	}
}

// TestAwayInWords: why a node cannot be reached is said once, in words for people, whatever the layers below add.
func TestAwayInWords(t *testing.T) {
	unreachable := errors.New("unreachable")
	shut := &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
	paths := errors.Join(fmt.Errorf("over 10.0.0.2:7420: %w", shut), fmt.Errorf("over 10.1.0.2:7420: %w", shut),
		fmt.Errorf("over 10.2.0.2:7420: %w", context.DeadlineExceeded))
	p := New(Config{Logger: slog.New(slog.DiscardHandler), Transport: &roundTripper{fmt.Errorf("call beta: %w", paths)},
		Unreachable: unreachable})
	err := p.Call(t.Context(), "beta", "version", nil, nil)
	if !errors.Is(err, unreachable) || err.Error() != "beta does not answer: nothing listens there, no answer in time" {
		t.Error(err)
	}
	for what, c := range map[string]struct{ err, is, not error }{
		"silent":   {paths, ErrSilent, membership.ErrRemoved},
		"refused":  {fmt.Errorf("over 10.0.0.2:7420: %w", shut), unreachable, ErrSilent},
		"replaced": {fmt.Errorf("over 10.0.0.2:7420: %w: beta", membership.ErrRemoved), membership.ErrRemoved, ErrSilent},
	} {
		p.http.Transport = &roundTripper{c.err}
		if err := p.Call(t.Context(), "beta", "version", nil, nil); !errors.Is(err, unreachable) || !errors.Is(err, c.is) ||
			errors.Is(err, c.not) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestRefusals: a node that takes this one for no member is remembered until it answers again, and counts while no
// other one takes it for a member.
func TestRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := &roundTripper{fmt.Errorf("call beta: %w", mux.ErrNotAllowed)}
		c := cluster.Config{Members: []cluster.Member{{Node: "alpha"}, {Node: "beta"}, {Node: "gamma"}}}
		p := New(Config{Logger: slog.New(slog.DiscardHandler), Transport: net,
			Cluster: func() cluster.Config { return c }})
		call := func(node cluster.NodeID, answer error) error {
			net.err = answer
			return p.Call(t.Context(), node, "version", nil, nil)
		}
		refuses := fmt.Errorf("call: %w", mux.ErrNotAllowed)
		if err := call("beta", refuses); !errors.Is(err, ErrRemoved) {
			t.Error(err)
		}
		if got := p.Refusals(); !slices.Equal(got, []cluster.NodeID{"beta"}) {
			t.Errorf("refused by %v", got)
		}
		_ = call("beta", errors.New("away")) // says nothing about that
		if len(p.Refusals()) != 1 {
			t.Error("forgotten while nobody answers")
		}
		_ = call("gamma", nil)
		if got := p.Refusals(); len(got) != 0 {
			t.Errorf("refused by %v although gamma takes it for a member", got)
		}
		time.Sleep(newsTime)
		all := c
		c.Remove("beta", time.Now())
		if got := p.Refusals(); len(got) != 0 {
			t.Errorf("refused by %v, which are no members", got)
		}
		c = all
		_ = call("beta", refuses)
		if len(p.Refusals()) != 1 {
			t.Error("forgotten after gamma's last word")
		}
		if err := call("beta", nil); err != nil || len(p.Refusals()) != 0 {
			t.Error(err, p.Refusals())
		}
		time.Sleep(newsTime)
		if len(p.Refusals()) != 0 {
			t.Error("remembered although it answered again")
		}
	})
}
