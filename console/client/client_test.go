package client_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"duet/console/api"
	"duet/console/api/apitest"
	"duet/console/client"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// dial serves h on a socket and returns a client of it.
func dial(t *testing.T, h http.Handler) *client.Client {
	t.Helper()
	path := filepath.Join(t.TempDir(), "d.sock")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: h, ReadHeaderTimeout: time.Second}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ln) }()
	c, err := client.New(client.Options{Connect: "unix://" + path})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Close()
		srv.Close()
		<-done
	})
	return c
}

// TestCalls: what is asked of the client is what the Backend gets, whatever characters names have.
func TestCalls(t *testing.T) {
	b := apitest.New()
	c := dial(t, api.Handler(b, "1.0", nil))
	ctx := t.Context()
	odd := "my vm/ä?#%2f"
	module, err := c.Module(ctx, "db")
	if err != nil || module.VM != "postgres" {
		t.Error(module, err)
	}
	entries, err := c.Log(ctx, "db", 1)
	if err != nil || len(entries) != 1 || entries[0].Node != "beta" {
		t.Error(entries, err)
	}
	res, err := c.Act(ctx, "db", api.Prim, api.ActionRequest{Node: "beta", Yes: true})
	if err != nil || res.Said != "has the order to prim" {
		t.Error(res, err)
	}
	task, err := c.Protect(ctx, odd, api.ProtectRequest{Peer: "beta"})
	if err != nil || task.ID != "t1" {
		t.Error(task, err)
	}
	if task, err = c.Task(ctx, "t1"); err != nil || task.Sync.Total != 10<<30 {
		t.Error(task, err)
	}
	_, err1 := c.Release(ctx, "db", api.ReleaseRequest{WithoutPeer: true})
	_, err2 := c.Verify(ctx, "db", "vda", true)
	_, err3 := c.Verify(ctx, odd, odd, false)
	_, err4 := c.NewToken(ctx, 90*time.Minute)
	if err := errors.Join(err1, err2, err4); err != nil || !errors.Is(err3, api.ErrNotFound) {
		t.Error(err, err3)
	}
	if gone, err := c.RemoveNode(ctx, "beta"); err != nil || len(gone.Modules) != 1 {
		t.Error(gone, err)
	}
	vols, err := c.Volumes(ctx)
	if err != nil || len(vols) != 4 {
		t.Error(vols, err)
	}
	conf, err := c.Apply(ctx, []byte("name: web01\n"), 3)
	if err != nil || conf.Version != 4 {
		t.Error(conf, err)
	}
	if err := errors.Join(c.Check(ctx, []byte("name: x")), second(c.Config(ctx, "db"))); err != nil {
		t.Error(err)
	}
	want := []string{
		"status", "log db 1", "act db prim {Node:beta Yes:true}", "protect " + odd + " {Peer:beta Module: Config: Images:[]}",
		"release db {WithoutPeer:true}", "verify db/vda true", "verify " + odd + "/" + odd + " false", "token 1h30m0s",
		"remove node beta", "status",
		"apply to 3", `check "name: web01\n"`, `check "name: x"`, "config db",
	}
	if got := b.Asked(); !slices.Equal(got, want) {
		t.Errorf("asked\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func second[T any](_ T, err error) error { return err }

// TestKinds: every kind of failure comes through with its text.
func TestKinds(t *testing.T) {
	b := apitest.New()
	c := dial(t, api.Handler(b, "1.0", nil))
	for _, kind := range []error{api.ErrNotFound, api.ErrInvalid, api.ErrConflict, api.ErrConfirm, api.ErrUnreach} {
		b.Fail = func(string) error { return fmt.Errorf("module db: why: %w", kind) }
		_, err := c.Status(t.Context())
		if !errors.Is(err, kind) || err.Error() != "module db: why: "+kind.Error() {
			t.Errorf("%v: got %v", kind, err)
		}
	}
	b.Fail = nil
	if _, err := c.Log(t.Context(), "db", -1); !errors.Is(err, api.ErrInvalid) ||
		!strings.Contains(err.Error(), "query.n") {
		t.Errorf("bad request: %v", err)
	}
}

// TestStrangeAnswers: what is no duetd, or one of another version, is told as such.
func TestStrangeAnswers(t *testing.T) {
	for name, c := range map[string]struct {
		h    http.HandlerFunc
		want string
	}{
		"not JSON":  {func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>") }, "same version"},
		"other API": {http.NotFound, "same version"},
		"500":       {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }, "answered 500"},
		"redirect":  {func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/x", 302) }, ""},
		"hang up":   {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "does not answer on"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := dial(t, c.h).Status(t.Context()); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

// TestDeadline: a node that takes the call and never answers does not hold the caller.
func TestDeadline(t *testing.T) {
	c := dial(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err := c.Status(ctx)
	if !errors.Is(err, client.ErrAway) || !strings.Contains(err.Error(), "in time: is it running?") {
		t.Errorf("%v", err)
	}
	ctx, cancel = context.WithCancel(t.Context())
	cancel()
	if _, err := c.Status(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
}

func TestPlainServer(t *testing.T) {
	srv := httptest.NewServer(http.NotFoundHandler())
	defer srv.Close()
	c, err := client.New(client.Options{Connect: strings.Replace(srv.URL, "http:", "https:", 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Status(t.Context()); !errors.Is(err, client.ErrAway) ||
		!strings.Contains(err.Error(), "HTTP response to HTTPS client") {
		t.Errorf("%v", err)
	}
}

func TestOptions(t *testing.T) {
	for _, connect := range []string{"http://node", "unix://run/x", "unix:", "https://", "https://node/path", "ftp://x",
		"node:1", "://"} {
		if _, err := client.New(client.Options{Connect: connect}); err == nil {
			t.Errorf("%q was accepted", connect)
		}
	}
	for _, o := range []client.Options{{TokenFile: "/nonexistent"}, {CAFile: "/nonexistent"}, {CAFile: "client_test.go"}} {
		o.Connect = "https://node:1"
		if _, err := client.New(o); err == nil {
			t.Errorf("%+v was accepted", o)
		}
	}
}
