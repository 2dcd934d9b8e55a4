package console_test

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"duet/cluster/pki"
	"duet/console"
	"duet/console/api"
	"duet/console/api/apitest"
	"duet/console/client"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start serves h on a socket and over TLS until the test ends.
func start(t *testing.T, h http.Handler, c console.Config) *console.Server {
	t.Helper()
	c.Handler = h
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	s, err := console.New(c)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(t, s) })
	return s
}

func stop(t *testing.T, s *console.Server) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	if t.Context().Err() != nil { // cleanup: the test's own context has ended
		ctx, cancel = context.WithTimeout(context.Background(), 5*time.Second)
	}
	defer cancel()
	if err := s.Stop(ctx); err != nil {
		t.Errorf("stop: %v", err)
	}
}

func identity(t *testing.T, dir, name string) *pki.Identity {
	t.Helper()
	id, err := pki.Init(dir, name, "alpha")
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// TestSocket: only the owner may open it, one left behind is replaced, one in use is not, and Stop takes it away.
func TestSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "d.sock")
	left, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	left.SetUnlinkOnClose(false)
	left.Close()

	h := api.Handler(apitest.New(), "1.0", nil)
	s := start(t, h, console.Config{Socket: path})
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	c, err := client.New(client.Options{Connect: "unix://" + path})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if st, err := c.Status(t.Context()); err != nil || st.Cluster != "office" {
		t.Errorf("status %q, %v", st.Cluster, err)
	}
	second, err := console.New(console.Config{Handler: h, Socket: path, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if err := second.Start(); err == nil || !strings.Contains(err.Error(), "another duetd") {
		t.Errorf("second server on the same path: %v", err)
	}
	if _, err := c.Status(t.Context()); err != nil {
		t.Errorf("the first was disturbed: %v", err)
	}
	stop(t, s)
	stop(t, s)
	if entries, err := os.ReadDir(filepath.Dir(path)); err != nil || len(entries) != 0 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
	_, err = c.Status(t.Context())
	if want := "duetd does not answer on " + path +
		": is it running? systemctl status duetd"; !errors.Is(err, client.ErrAway) || err.Error() != want {
		t.Errorf("after stop: %v, want %s", err, want)
	}
}

// TestStopLeavesOthers: a duetd that stops leaves the socket that another one has moved into its place.
func TestStopLeavesOthers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "d.sock")
	h := api.Handler(apitest.New(), "1.0", nil)
	first := start(t, h, console.Config{Socket: path})
	if err := os.Remove(path); err != nil { // else the second one finds that the first one answers
		t.Fatal(err)
	}
	start(t, h, console.Config{Socket: path})
	stop(t, first)
	c, err := client.New(client.Options{Connect: "unix://" + path})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Status(t.Context()); err != nil {
		t.Errorf("the second one lost its socket: %v", err)
	}
}

func TestSocketKeepsFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "d.sock")
	if err := os.WriteFile(path, []byte("mine"), 0o644); err != nil {
		t.Fatal(err)
	}
	s, err := console.New(console.Config{Socket: path, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(); err == nil {
		t.Error("a plain file was replaced")
	}
	if b, _ := os.ReadFile(path); string(b) != "mine" {
		t.Errorf("file is now %q", b)
	}
}

// TestTLS: who has the token or a certificate of the cluster gets in, nobody else.
func TestTLS(t *testing.T) {
	dir := t.TempDir()
	id := identity(t, filepath.Join(dir, "pki"), "office")
	foreign := identity(t, filepath.Join(dir, "foreign"), "elsewhere")
	tokenFile, ca := filepath.Join(dir, "console.token"), filepath.Join(dir, "pki", "ca.crt")
	s := start(t, api.Handler(apitest.New(), "1.0", nil),
		console.Config{Listen: "127.0.0.1:0", Identity: id, TokenFile: tokenFile})
	connect := "https://" + s.Addr().String()
	info, err := os.Stat(tokenFile)
	if err != nil || info.Mode().Perm() != 0o600 || info.Size() < 64 {
		t.Fatalf("token file %v, %v", info, err)
	}
	bad := filepath.Join(dir, "bad.token")
	if err := os.WriteFile(bad, []byte(strings.Repeat("0", 64)), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		o    client.Options
		want string // "" is success
	}{
		{"token", client.Options{Connect: connect, TokenFile: tokenFile, CAFile: ca}, ""},
		{"no token", client.Options{Connect: connect, CAFile: ca}, "wants a token"},
		{"wrong token", client.Options{Connect: connect, TokenFile: bad, CAFile: ca}, "wants a token"},
		{"no CA", client.Options{Connect: connect, TokenFile: tokenFile}, "give the cluster's CA with --ca-file"},
		{"wrong CA", client.Options{Connect: connect, TokenFile: tokenFile, CAFile: filepath.Join(dir, "foreign", "ca.crt")},
			"not of a known authority"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cl, err := client.New(c.o)
			if err != nil {
				t.Fatal(err)
			}
			defer cl.Close()
			_, err = cl.Status(t.Context())
			if c.want == "" && err != nil || c.want != "" &&
				(!errors.Is(err, client.ErrDenied) || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
	t.Run("node certificate", func(t *testing.T) {
		if status, err := get(t, connect, id.Client("alpha")); err != nil || status != http.StatusOK {
			t.Errorf("%d, %v", status, err)
		}
	})
	t.Run("foreign certificate", func(t *testing.T) {
		conf := foreign.Client("alpha")
		conf.VerifyConnection = nil // the caller does not care; the node must
		if status, err := get(t, connect, conf); err == nil {
			t.Errorf("a node of another cluster got %d", status)
		}
	})
	t.Run("TLS 1.2", func(t *testing.T) {
		conf := id.Client("alpha")
		conf.MinVersion, conf.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
		if status, err := get(t, connect, conf); err == nil {
			t.Errorf("TLS 1.2 got %d", status)
		}
	})
}

func get(t *testing.T, connect string, conf *tls.Config) (int, error) {
	t.Helper()
	tr := &http.Transport{TLSClientConfig: conf, ForceAttemptHTTP2: true}
	defer tr.CloseIdleConnections()
	res, err := (&http.Client{Transport: tr, Timeout: 5 * time.Second}).Get(connect + "/v1/status")
	if err != nil {
		return 0, err
	}
	res.Body.Close()
	return res.StatusCode, nil
}

// TestTokenFile: the token stays over restarts, and a file that others can read or that is too short is refused.
func TestTokenFile(t *testing.T) {
	dir := t.TempDir()
	id := identity(t, filepath.Join(dir, "pki"), "office")
	file := filepath.Join(dir, "console.token")
	try := func() error {
		s, err := console.New(console.Config{Handler: http.NotFoundHandler(), Listen: "127.0.0.1:0", Identity: id,
			TokenFile: file, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			return err
		}
		defer stop(t, s)
		return s.Start()
	}
	if err := try(); err != nil {
		t.Fatal(err)
	}
	first, _ := os.ReadFile(file)
	if err := try(); err != nil {
		t.Fatal(err)
	}
	if again, _ := os.ReadFile(file); string(again) != string(first) {
		t.Error("the token changed at a restart")
	}
	if err := os.Chmod(file, 0o640); err != nil {
		t.Fatal(err)
	}
	if err := try(); !errors.Is(err, console.ErrOpenToken) {
		t.Errorf("open file: %v", err)
	}
	if err := errors.Join(os.Chmod(file, 0o600), os.WriteFile(file, []byte("\n"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := try(); err == nil {
		t.Error("an empty token was accepted")
	}
	if _, err := console.New(console.Config{Listen: ":0", Identity: id}); err == nil {
		t.Error("TLS without a token file was accepted")
	}
}

// TestStopIsBounded: a call that never ends does not hold up Stop beyond its time.
func TestStopIsBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "d.sock")
	inside, release := make(chan struct{}), make(chan struct{})
	s := start(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(inside)
		<-r.Context().Done()
		close(release)
	}), console.Config{Socket: path})
	c, err := client.New(client.Options{Connect: "unix://" + path})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	failed := make(chan error, 1)
	go func() { _, err := c.Status(context.Background()); failed <- err }()
	<-inside
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := s.Stop(ctx); err != nil {
		t.Errorf("stop: %v", err)
	}
	select {
	case <-release:
	case <-time.After(5 * time.Second):
		t.Fatal("the call was not cut")
	}
	if err := <-failed; err == nil {
		t.Error("the call ended well")
	}
}

// TestAudit: what changes something is logged with who asked, what only looks is not.
func TestAudit(t *testing.T) {
	dir := t.TempDir()
	var log strings.Builder
	id := identity(t, filepath.Join(dir, "pki"), "office")
	s := start(t, api.Handler(apitest.New(), "1.0", nil), console.Config{
		Socket: filepath.Join(dir, "d.sock"), Listen: "127.0.0.1:0", Identity: id, TokenFile: filepath.Join(dir, "t"),
		Log: slog.New(slog.NewTextHandler(&log, nil)),
	})
	for _, o := range []client.Options{
		{Connect: "unix://" + filepath.Join(dir, "d.sock")},
		{Connect: "https://" + s.Addr().String(), TokenFile: filepath.Join(dir, "t"),
			CAFile: filepath.Join(dir, "pki", "ca.crt")},
	} {
		c, err := client.New(o)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Status(t.Context()); err != nil {
			t.Error(err)
		}
		if _, err := c.Act(t.Context(), "nosuch", api.Stop, api.ActionRequest{}); !errors.Is(err, api.ErrNotFound) {
			t.Error(err)
		}
		c.Close()
	}
	stop(t, s)
	if got := log.String(); strings.Count(got, "msg=request") != 2 || !strings.Contains(got, "by=local") ||
		!strings.Contains(got, "by=token") || strings.Count(got, "path=/v1/modules/nosuch/stop status=404") != 2 {
		t.Errorf("log:\n%s", got)
	}
}

var _ console.Identity = (*pki.Identity)(nil)
