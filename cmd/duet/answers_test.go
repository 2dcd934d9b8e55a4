package main

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"duet/console/api"
	"duet/console/api/apitest"
)

// behind gives a command line before a daemon for which f may answer; where f returns false the fake node does.
func behind(t *testing.T, f func(http.ResponseWriter, *http.Request) bool) *bench {
	t.Helper()
	b := newBench(t, true)
	ln, err := net.Listen("unix", b.socket)
	if err != nil {
		t.Fatal(err)
	}
	node := api.Handler(b.node, "1.0", nil)
	s := &httptest.Server{Listener: ln, Config: &http.Server{Handler: http.HandlerFunc(
		func(w http.ResponseWriter, r *http.Request) {
			if !f(w, r) {
				node.ServeHTTP(w, r)
			}
		})}}
	s.Start()
	t.Cleanup(s.Close)
	return b
}

// says is an answer that is always the same.
func says(code int, text string) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, _ *http.Request) bool {
		w.WriteHeader(code)
		_, _ = io.WriteString(w, text)
		return true
	}
}

// cut is an answer whose connection is lost in the middle.
func cut(w http.ResponseWriter, _ *http.Request) bool {
	w.Header().Set("Content-Length", "1000")
	_, _ = io.WriteString(w, `{"cluster":"office","nodes":[`)
	_ = http.NewResponseController(w).Flush()
	panic(http.ErrAbortHandler)
}

// one runs a command line and wants this exit code, nothing on standard output, and one line on standard error, which
// is returned without the program's name.
func (b *bench) one(t *testing.T, ctx context.Context, line string, want int) string {
	t.Helper()
	code := b.run(ctx, strings.Fields(line))
	text, ok := strings.CutPrefix(b.err.String(), "duet: ")
	if code != want || b.out.String() != "" || !ok || strings.Count(text, "\n") != 1 {
		t.Errorf("%s: exit %d, want %d and one line of error:\n%s", line, code, want, b.transcript(code))
	}
	return strings.ReplaceAll(strings.TrimSuffix(text, "\n"), b.socket, "SOCKET")
}

// problem runs a command line with --json, wants exit 1, and returns the one problem document on standard error.
func (b *bench) problem(t *testing.T, line string) (p struct {
	Title  string
	Status int
	Detail string
}) {
	t.Helper()
	code := b.run(t.Context(), append(strings.Fields(line), "--json"))
	d := json.NewDecoder(strings.NewReader(b.err.String()))
	d.DisallowUnknownFields()
	if err := d.Decode(&p); err != nil || d.More() || code != exitError {
		t.Errorf("%s --json: %v, exit %d:\n%s", line, err, code, b.transcript(code))
	}
	if p.Detail == "" || p.Title == "" || p.Status != 499 && p.Title != http.StatusText(p.Status) {
		t.Errorf("%s --json: the problem is %+v", line, p)
	}
	return p
}

// asking are command lines that cannot do anything without an answer of the daemon.
var asking = []string{"status", "status db", "stop db", "log", "log db", "volume list", "volume list db", "vm list",
	"vm protect web", "vm protect web --check", "vm release db", "vm return db", "volume verify db/vda", "volume diverged",
	"config show db", "config set db policy.restart.max=5", "cluster token", "cluster status", "cluster fence list",
	"cluster ping list", "cluster fence test beta", "cluster remove beta --yes", "cluster witness list", "task t1",
	"metrics config", "doctor"}

// TestGarbage: an answer that is none ends every command with one line that names whom it is of and what may be the
// reason, and with exit code 1.
func TestGarbage(t *testing.T) {
	for what, f := range map[string]func(http.ResponseWriter, *http.Request) bool{
		"a page":       says(200, "<html>It works!</html>"),
		"nothing":      says(200, ""),
		"half of it":   says(200, `{"cluster":"office","nodes":[`),
		"another type": says(200, `"office"`),
	} {
		b := behind(t, f)
		for _, line := range asking {
			b.again()
			got := b.one(t, t.Context(), line, exitError)
			if !strings.HasPrefix(got, "read the answer of SOCKET: ") ||
				!strings.HasSuffix(got, ": is it a duetd of the same version?") {
				t.Errorf("%s, answered with %s: %q", line, what, got)
			}
		}
	}
	if code := behind(t, says(200, "{")).run(t.Context(), []string{"status", "db", "-q"}); code != exitUnknown {
		t.Errorf("status db -q: exit %d, want %d", code, exitUnknown)
	}
}

// TestRefusedByServer: what a server refuses without a reason of its own is told by whom and how.
func TestRefusedByServer(t *testing.T) {
	const stranger = ": is it a duetd of the same version?"
	for _, c := range []struct {
		code         int
		answer, want string
		status       int
	}{
		{404, "404 page not found", "SOCKET answered 404 Not Found" + stranger, 500},
		{405, "", "SOCKET answered 405 Method Not Allowed" + stranger, 500},
		{500, "<html>oops</html>", "SOCKET answered 500 Internal Server Error", 500},
		{503, `{"detail":"the store is closed"}`, "the store is closed", 500},
		{409, `{"detail":"no","errors":[{"location":"body.node","message":"too long"}]}`, "no: body.node too long", 409},
		{401, `{"detail":"unauthorized"}`, "SOCKET wants a token: give --token-file with a copy of console.token from " +
			"that node's directory", 403},
	} {
		if got := behind(t, says(c.code, c.answer)).one(t, t.Context(), "vm list", exitError); got != c.want {
			t.Errorf("%d %q: said %q, want %q", c.code, c.answer, got, c.want)
		}
		b := behind(t, says(c.code, c.answer))
		if p := b.problem(t, "vm list"); p.Status != c.status ||
			strings.ReplaceAll(p.Detail, b.socket, "SOCKET") != c.want {
			t.Errorf("%d %q: %+v, want status %d", c.code, c.answer, p, c.status)
		}
	}
}

// TestCut: a connection that is lost in the middle of an answer is a daemon that does not answer.
func TestCut(t *testing.T) {
	const want = "duetd does not answer on SOCKET: is it running? systemctl status duetd"
	for _, line := range []string{"status", "log db", "vm list", "config show db", "cluster token", "stop db"} {
		if got := behind(t, cut).one(t, t.Context(), line, exitError); got != want {
			t.Errorf("%s: %q", line, got)
		}
	}
	if p := behind(t, cut).problem(t, "status"); p.Status != http.StatusServiceUnavailable {
		t.Errorf("with --json: %+v", p)
	}
}

// TestHang: a daemon that hangs is told from one that does not run.
func TestHang(t *testing.T) {
	hang := func(_ http.ResponseWriter, r *http.Request) bool {
		<-r.Context().Done()
		return true
	}
	for line, want := range map[string]int{"status": exitError, "vm list": exitError, "status -q": exitUnknown} {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		got := behind(t, hang).one(t, ctx, line, want)
		cancel()
		if got != "duetd does not answer on SOCKET in time: is it running? systemctl status duetd" {
			t.Errorf("%s: %q", line, got)
		}
	}
	b := behind(t, hang)
	stop := b.background(t, "vm list")
	if code := stop(); code != exitError || b.err.String() != "duet: interrupted\n" {
		t.Errorf("ctrl-C: exit %d, %q", code, b.err.String())
	}
}

// newer adds to every object of an answer a field that this release does not know.
func newer(v any) any {
	switch x := v.(type) {
	case map[string]any:
		for k := range x {
			x[k] = newer(x[k])
		}
		if _, paths := x["hb1"]; !paths { // a table whose keys are names
			x["of_a_newer_release"] = []any{map[string]any{"a": 1}, "b", nil}
		}
	case []any:
		for i := range x {
			x[i] = newer(x[i])
		}
	}
	return v
}

// TestNewerDaemon: fields that a newer daemon adds change nothing of what is said.
func TestNewerDaemon(t *testing.T) {
	old := newBench(t, false)
	node := api.Handler(old.node, "1.0", nil)
	b := behind(t, func(w http.ResponseWriter, r *http.Request) bool {
		rec := httptest.NewRecorder()
		node.ServeHTTP(rec, r)
		var v any
		if err := json.Unmarshal(rec.Body.Bytes(), &v); err != nil {
			t.Errorf("%s %s: %v", r.Method, r.URL, err)
		}
		w.WriteHeader(rec.Code)
		_ = json.NewEncoder(w).Encode(newer(v))
		return true
	})
	for _, line := range asking {
		if strings.Contains(line, "fence list") || strings.HasPrefix(line, "stop") {
			continue // the options of an agent are names; a module stops only once
		}
		old.again()
		old.node.Steps = apitest.Work()
		want := old.transcript(old.run(t.Context(), strings.Fields(line)))
		b.again()
		old.node.Steps = apitest.Work()
		if got := b.transcript(b.run(t.Context(), strings.Fields(line))); got != want {
			t.Errorf("duet %s:\n%s\nwant\n%s", line, got, want)
		}
	}
}

// nothing leaves every answer to the fake node.
func nothing(http.ResponseWriter, *http.Request) bool { return false }

// TestOlderDaemon: a daemon of an older release that gives no verdict is shown without one.
func TestOlderDaemon(t *testing.T) {
	b := behind(t, says(200, `{"cluster":"office","self":"alpha","version":"0.1","nodes":[],"modules":[]}`))
	const want = "Cluster office, as alpha sees it (duetd 0.1)\n\nNODE  STATE  HEARTBEAT\n\n" +
		"No modules yet: duet vm protect VM puts a virtual machine under protection.\n--- exit 0\n"
	if got := b.transcript(b.run(t.Context(), []string{"status"})); got != want {
		t.Errorf("%s", got)
	}
}

// TestRemote: over TLS it is said what is wrong with the certificate, the token and the files of both.
func TestRemote(t *testing.T) {
	var tokens []string
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		tokens = append(tokens, r.Header.Get("Authorization"))
		if r.Header.Get("Authorization") != "Bearer secret" {
			says(401, "")(w, r)
			return
		}
		says(200, `{"vms":[]}`)(w, r)
	}))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	defer s.Close()
	addr := s.Listener.Addr().String()
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	ca := file("ca", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})))
	good, bad, empty := file("good", "secret\n"), file("bad", "guess"), file("empty", " \n")
	for _, c := range []struct{ flags, want string }{
		{"--connect https://" + addr, "the certificate of ADDR is not of a known authority: give the cluster's CA with " +
			"--ca-file"},
		{"--connect https://" + addr + " --ca-file " + ca, "ADDR wants a token: give --token-file"},
		{"--connect https://" + addr + " --ca-file " + ca + " --token-file " + bad, "ADDR wants a token"},
		{"--connect https://" + addr + " --ca-file " + ca + " --token-file " + empty, "read token: "},
		{"--connect https://" + addr + " --ca-file " + bad, "holds no certificate in PEM"},
		{"--connect https://" + addr + " --ca-file " + dir + "/none", "/none does not exist"},
		{"--connect https://" + addr + " --token-file " + dir + "/none", "/none does not exist"},
		{"--connect http://" + addr, "say unix:///path/to/duetd.sock or https://node:port"},
		{"--connect unix://", "say unix:///path/to/duetd.sock or https://node:port"},
		{"--connect " + addr, "connect to "},
	} {
		got := newBench(t, true).one(t, t.Context(), "vm list "+c.flags, exitError)
		if got = strings.ReplaceAll(got, addr, "ADDR"); !strings.Contains(got, c.want) {
			t.Errorf("%s: %q, want %q", c.flags, got, c.want)
		}
	}
	b := newBench(t, true)
	code := b.run(t.Context(), strings.Fields("vm list --connect https://"+addr+" --ca-file "+ca+" --token-file "+good))
	if code != exitOK {
		t.Errorf("with all that is needed:\n%s", b.transcript(code))
	}
	if got := strings.Join(tokens, ","); got != ",Bearer guess,Bearer secret,Bearer secret" {
		t.Errorf("the server got the tokens %q", got)
	}
}
