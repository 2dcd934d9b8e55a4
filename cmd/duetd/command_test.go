package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"duet/blockrepl/badgerlog"
	"duet/cluster/membership"
	"duet/cluster/witness"
)

// here does in this process what one command line says, and returns what it wrote and its error. It is for what changes
// nothing of the process.
func here(t *testing.T, args ...string) (out, said string, err error) {
	t.Helper()
	caught := func(std **os.File) func() string {
		f, ferr := os.CreateTemp(t.TempDir(), "")
		if ferr != nil {
			t.Fatal(ferr)
		}
		old := *std
		*std = f
		return func() string {
			*std = old
			_ = f.Close()
			b, ferr := os.ReadFile(f.Name())
			if ferr != nil {
				t.Fatal(ferr)
			}
			return string(b)
		}
	}
	stdout, stderr := caught(&os.Stdout), caught(&os.Stderr)
	err = command(args)
	return stdout(), stderr(), err
}

// output is a buffer that may be read while it is written.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// waitFor waits until cond is so.
func waitFor(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for late := time.After(10 * time.Second); !cond(); {
		select {
		case <-late:
			t.Fatalf("still not: %s", what)
		case <-time.After(time.Millisecond):
		}
	}
}

// TestMistakes: each mistake in a command line, or in what it names, is one error that says what is wrong, and those
// that another try cannot mend have an exit code of their own.
func TestMistakes(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	const any = -1
	for _, c := range []struct {
		line, want string
		code       int
	}{
		{"start", `"start" is too much: there are flags (--help shows them), "duetd witness", "duetd guard" and "duetd apps"`, 64},
		{"--version now", `"now" is too much: `, 64},
		{"--nosuch", "flag provided but not defined: -nosuch", 64},
		{"--dir", "flag needs an argument: -dir", 64},
		{"--log loud", "--log loud: say debug, info, warn or error", any},
		{"apps now", `"now" is too much: there are flags (--help shows them)`, 64},
		{"disk x", "duetd disk is run by duetd apps: it takes a directory, a socket and the name of an export", 64},
		{"guard now", `"now" is too much: there are flags (--help shows them)`, 64},
		{"guard --life 1h", "flag provided but not defined: -life", 64},
		{"witness --life soon", `invalid value "soon" for flag -life: parse error`, 64},
		{"witness start", "duetd witness start: there are token, list and forget", any},
		{"witness forget --dir " + dir, "say which cluster to forget, by its ID: duetd witness list", any},
		{"witness forget --dir " + dir + " a b", "say which cluster to forget, by its ID: duetd witness list", any},
		{"witness --dir " + dir + "/w --listen nowhere", "serve clusters: listen tcp: address nowhere: missing port in " +
			"address", 1},
		{"witness --dir " + file, "open store: ", 1},
		{"witness list --dir " + dir, "no witness answers for --dir " + dir + ": `systemctl start duetd-witness` " +
			"starts that of the package, \"duetd witness list\" with --dir asks another (there is no ", 1},
	} {
		out, said, err := here(t, strings.Fields(c.line)...)
		if err == nil || !strings.HasPrefix(err.Error(), c.want) || strings.Contains(err.Error(), "\n") || out != "" {
			t.Errorf("duetd %s: %v, want %q\n%s%s", c.line, err, c.want, out, said)
			continue
		}
		if code := exitCode(err); c.code != any && code != c.code {
			t.Errorf("duetd %s: exit %d, want %d", c.line, code, c.code)
		}
	}
}

// TestHelp: help shows the flags and is no mistake, and the version is one line.
func TestHelp(t *testing.T) {
	for args, want := range map[string]string{"--help": "-admit-root",
		"witness --help": "duetd witness forget [--dir D] ID",
		"guard -h":       "systemd runs it beside duetd.", "apps -h": "as duetd tells it.",
		"witness token --help": "-life duration"} {
		out, said, err := here(t, strings.Fields(args)...)
		if !errors.Is(err, flag.ErrHelp) || !strings.Contains(said, want) || out != "" {
			t.Errorf("duetd %s: %v\n%s%s", args, err, out, said)
		}
	}
	if out, said, err := here(t, "--version"); err != nil || strings.Count(out, "\n") != 1 || said != "" {
		t.Errorf("duetd --version: %v\n%s%s", err, out, said)
	}
}

// TestExitCode: systemd is told by the exit code whether another try may help, however deep the reason lies.
func TestExitCode(t *testing.T) {
	for err, want := range map[error]int{
		errors.New("the disk is full"):                                  1,
		usageError{errors.New("x")}:                                     64,
		fmt.Errorf("run: %w", usageError{errors.New("x")}):              64,
		membership.ErrNoMember:                                          78,
		fmt.Errorf("make node: %w", membership.ErrNoMember):             78,
		errors.Join(errors.New("x"), fmt.Errorf("y: %w", os.ErrExist)):  1,
		errors.Join(membership.ErrNoMember, errors.New("close: twice")): 78,
	} {
		if got := exitCode(err); got != want {
			t.Errorf("%v: exit %d, want %d", err, got, want)
		}
	}
}

// TestDesk: an admin's words to a witness: what it does, and a sentence for what it does not.
func TestDesk(t *testing.T) {
	dir := t.TempDir()
	db, err := badgerlog.Open(badgerlog.Config{Dir: filepath.Join(dir, "db"), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	s, err := witness.New(witness.Config{Dir: dir, Store: badgerlog.Values{Store: db}, Version: "1.0"})
	if err != nil {
		t.Fatal(err)
	}
	desk := deskHandler(s)
	for _, c := range []struct {
		method, path, body, want string
		code                     int
	}{
		{"POST", "/token", "3600000000000", "Good once, for 1h0m0s. On a node: duet cluster witness add", 200},
		{"POST", "/token", `"1h"`, "cannot unmarshal string", 422},
		{"POST", "/token", "", "unexpected end of JSON input", 422},
		{"POST", "/list", "null", "", 200},
		{"POST", "/forget", "7", "cannot unmarshal number", 422},
		{"POST", "/forget", `"0123abcd"`, "there is no cluster \"0123abcd\" here", 422},
		{"GET", "/list", "", "Method Not Allowed", 405},
		{"POST", "/grant", "null", "404 page not found", 404},
	} {
		rec := httptest.NewRecorder()
		desk.ServeHTTP(rec, httptest.NewRequest(c.method, c.path, strings.NewReader(c.body)))
		if got := rec.Body.String(); rec.Code != c.code || !strings.Contains(got, c.want) {
			t.Errorf("%s %s %s: %d %q, want %d %q", c.method, c.path, c.body, rec.Code, got, c.code, c.want)
		}
	}
}

// TestPrint: what the running witness says goes to standard output, what it refuses is the error, and half an answer is
// none.
func TestPrint(t *testing.T) {
	dir, err := os.MkdirTemp("", "desk") // short: a socket lies in it
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	o := witnessOptions{dir: dir}
	ln, err := net.Listen("unix", o.desk())
	if err != nil {
		t.Fatal(err)
	}
	var asked []string
	s := &httptest.Server{Listener: ln, Config: &http.Server{Handler: http.HandlerFunc(
		func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			asked = append(asked, r.Method+" "+r.URL.Path+" "+string(body))
			switch r.URL.Path {
			case "/list":
				_, _ = io.WriteString(w, "a\nb\n")
			case "/forget":
				http.Error(w, "there is no cluster 7", http.StatusUnprocessableEntity)
			case "/token":
				w.Header().Set("Content-Length", "100")
				_, _ = io.WriteString(w, "duetw1.")
				_ = http.NewResponseController(w).Flush()
				panic(http.ErrAbortHandler)
			}
		})}}
	s.Start()
	defer s.Close()
	for _, c := range []struct{ line, out, err string }{
		{"witness list", "a\nb\n", "<nil>"},
		{"witness forget --dir " + dir + " 7", "", "there is no cluster 7"},
		{"witness token --life 1m", "", "the connection has ended"},
	} {
		args := strings.Fields(c.line)
		if !strings.Contains(c.line, "--dir") {
			args = append(args, "--dir", dir)
		}
		if out, _, err := here(t, args...); out != c.out || fmt.Sprint(err) != c.err {
			t.Errorf("duetd %s: %q, %v", c.line, out, err)
		}
	}
	if got := strings.Join(asked, "; "); got != `POST /list null; POST /forget "7"; POST /token 60000000000` {
		t.Errorf("it was asked %s", got)
	}
}

// TestTokenAlone: a token is alone on standard output, so that a script can keep it; what to do with it is beside it.
func TestTokenAlone(t *testing.T) {
	dir, err := os.MkdirTemp("", "desk") // short: a socket lies in it
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	ln, err := net.Listen("unix", witnessOptions{dir: dir}.desk())
	if err != nil {
		t.Fatal(err)
	}
	s := &httptest.Server{Listener: ln, Config: &http.Server{Handler: http.HandlerFunc(
		func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "duetw1.x.y\nGood once, for 1h0m0s.\n")
		})}}
	s.Start()
	defer s.Close()
	out, said, err := here(t, "witness", "token", "--dir", dir)
	if out != "duetw1.x.y\n" || said != "Good once, for 1h0m0s.\n" || err != nil {
		t.Errorf("%q, beside it %q, %v", out, said, err)
	}
}

// held is a writer that takes nothing until it is let go.
type held struct {
	wait chan struct{}
	b    bytes.Buffer
}

func (h *held) Write(p []byte) (int, error) {
	<-h.wait
	return h.b.Write(p)
}

// numbered writes the lines from, from+1, … to-1 as one does who uses its buffer again.
func numbered(t *testing.T, s *spout, from, to int) {
	t.Helper()
	text := []byte("line 0000\n")
	for i := from; i < to; i++ {
		copy(text[5:], fmt.Sprintf("%04d", i))
		if n, err := s.Write(text); n != len(text) || err != nil {
			t.Fatalf("a line was not taken: %d, %v", n, err)
		}
	}
}

// TestSpout: who logs never waits. What is taken comes whole and in order, what nobody takes is lost, and the end waits
// for a second at most.
func TestSpout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &held{wait: make(chan struct{})}
		s := newSpout(h)
		numbered(t, s, 0, 1)
		synctest.Wait() // it is being written
		numbered(t, s, 1, 2000)
		close(h.wait)
		synctest.Wait()
		numbered(t, s, 2000, 2001)
		s.close()
		lines := strings.Split(strings.TrimSpace(h.b.String()), "\n")
		if len(lines) != 1+512+1 || lines[513] != "line 2000" {
			t.Errorf("%d lines were kept, the last is %s", len(lines), lines[len(lines)-1])
		}
		for i, l := range lines[:513] {
			if l != fmt.Sprintf("line %04d", i) {
				t.Fatalf("line %d is %q", i, l)
			}
		}
	})
	synctest.Test(t, func(t *testing.T) {
		h := &held{wait: make(chan struct{})}
		s := newSpout(h)
		numbered(t, s, 0, 10)
		began := time.Now()
		s.close()
		if took := time.Since(began); took != time.Second {
			t.Errorf("it ended after %v", took)
		}
		close(h.wait)
		<-s.ended
	})
	var b bytes.Buffer
	s := newSpout(&b)
	log := slog.New(slog.NewJSONHandler(s, nil))
	for i := range 100 {
		log.Info("x", "i", i)
	}
	s.close()
	if n := strings.Count(b.String(), "\n"); n != 100 || !strings.HasSuffix(b.String(), "\"i\":99}\n") {
		t.Errorf("%d lines before the end:\n%s", n, b.String())
	}
	if n, err := s.Write([]byte("late\n")); n != 5 || err != nil || strings.Contains(b.String(), "late") {
		t.Errorf("after the end: %d, %v", n, err)
	}
}
