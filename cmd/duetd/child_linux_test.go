package main

import (
	"context"
	"log/slog"

	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"duet/cluster/guard"
	"duet/cluster/membership"
	"duet/cluster/pki"
	"duet/cmd/duet/setup"
)

// asDuetd is set for a run of this program as duetd itself.
const asDuetd = "DUETD_TEST_IS_DUETD"

// TestMain lets a child be duetd. It may lock no memory: that of a test is large, and of one that looks for races huge.
func TestMain(m *testing.M) {
	if os.Getenv(asDuetd) == "" {
		os.Exit(m.Run())
	}
	if err := unix.Setrlimit(unix.RLIMIT_MEMLOCK, &unix.Rlimit{}); err != nil {
		panic(err)
	}
	main()
}

// nobody is who children are, where the test is root.
const nobody = 65534

// home is an empty directory of the children's own. Its name is short: sockets lie in it.
func home(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "duetd")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return own(t, dir)
}

// own gives dir and all that is in it to the children.
func own(t *testing.T, dir string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		return dir
	}
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, nobody, nobody)
	})
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// child is a run of duetd.
type child struct {
	*exec.Cmd
	out, err output
	ended    chan struct{}
}

// start runs duetd with these arguments, as an ordinary user; it is killed at the end of the test.
func start(t *testing.T, args ...string) *child {
	t.Helper()
	c := &child{Cmd: exec.Command("/proc/self/exe", args...), ended: make(chan struct{})}
	c.Env, c.Dir = []string{asDuetd + "=1", "PATH=" + os.Getenv("PATH"), "GOCOVERDIR=" + home(t)}, "/"
	c.Stdout, c.Stderr = &c.out, &c.err
	if os.Geteuid() == 0 {
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(c.ended)
		_ = c.Wait() // ProcessState tells it
	}()
	t.Cleanup(func() { c.end(t, syscall.SIGKILL) })
	return c
}

// end sends a signal, if it is one, waits for the end and returns the exit code.
func (c *child) end(t *testing.T, s syscall.Signal) int {
	t.Helper()
	if s != 0 {
		_ = c.Process.Signal(s) // it may have ended
	}
	select {
	case <-c.ended:
	case <-time.After(10 * time.Second):
		t.Fatalf("duetd %q does not end:\n%s", c.Args[1:], c.err.String())
	}
	return c.ProcessState.ExitCode()
}

// line is one line of a log.
type line struct {
	Level, Msg, Err, Dir, Listen, Socket, Version string
	Time                                          time.Time
}

// log is what c has logged so far; every line of it has to be JSON, with a time and a level.
func (c *child) log(t *testing.T) []line {
	t.Helper()
	var out []line
	text := c.err.String()
	for l := range strings.Lines(text[:strings.LastIndex(text, "\n")+1]) {
		var x line
		if err := json.Unmarshal([]byte(l), &x); err != nil || x.Msg == "" || x.Level == "" || x.Time.IsZero() {
			t.Fatalf("a line of the log is no JSON: %v: %s", err, l)
		}
		out = append(out, x)
	}
	return out
}

// says waits until c has logged msg and returns that line.
func (c *child) says(t *testing.T, msg string) (found line) {
	t.Helper()
	waitFor(t, msg, func() bool {
		t.Helper()
		for _, l := range c.log(t) {
			if l.Msg == msg {
				found = l
				return true
			}
		}
		select {
		case <-c.ended:
			t.Fatalf("duetd %q has ended and did not say %q:\n%s", c.Args[1:], msg, c.err.String())
		default:
		}
		return false
	})
	return found
}

// TestWitnessLife: a witness runs until SIGTERM, says where, obeys an admin meanwhile, lets no second one into its
// directory, and comes back after it was killed.
func TestWitnessLife(t *testing.T) {
	dir := home(t)
	w := start(t, "witness", "--dir", dir, "--listen", "127.0.0.1:0")
	runs := w.says(t, "witness runs")
	if host, port, err := net.SplitHostPort(runs.Listen); err != nil || host != "127.0.0.1" || port == "0" ||
		runs.Dir != dir || runs.Version == "" || runs.Level != "INFO" {
		t.Errorf("it runs as %+v", runs)
	}
	if info, err := os.Stat(filepath.Join(dir, "witness.sock")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the socket of admins: %v, %v", info, err)
	}
	out, rest, err := here(t, "witness", "token", "--life", "90m", "--dir", dir)
	token := strings.TrimSuffix(out, "\n")
	if want := "Good once, for 1h30m0s. On a node: duet cluster witness add ADDRESS:PORT --token " + token + "\n"; err !=
		nil || rest != want || !strings.HasPrefix(token, "duetw1.") {
		t.Errorf("a token: %v\n%s", err, out)
	}
	_, _, err = here(t, "witness", "--dir", dir, "--listen", "127.0.0.1:0")
	if err == nil || !strings.HasPrefix(err.Error(), "open store: ") || exitCode(err) != exitError {
		t.Errorf("a second one in its directory: %v", err)
	}
	lists := func(when string, want bool) {
		t.Helper()
		if _, _, err := here(t, "witness", "list", "--dir", dir); (err == nil) != want {
			t.Errorf("%s: %v", when, err)
		}
	}
	lists("after a second one has tried", true)
	w.end(t, syscall.SIGKILL)
	lists("after it was killed", false)
	w = start(t, "witness", "--dir", dir, "--listen", "127.0.0.1:0")
	w.says(t, "witness runs")
	lists("after it is back", true)
	if code := w.end(t, syscall.SIGTERM); code != 0 || w.out.String() != "" {
		t.Errorf("exit %d\n%s%s", code, w.out.String(), w.err.String())
	}
	lists("after its end", false)
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return lines[len(lines)-1]
}

// TestNoMember: a node that is in no cluster yet is not tried again by systemd, and says what to do.
func TestNoMember(t *testing.T) {
	dir := home(t)
	d := start(t, "--dir", dir, "--guard=", "--socket", filepath.Join(dir, "s"), "--run", filepath.Join(dir, "v"))
	want := "duetd: " + dir + " is not the directory of a member: run `duet cluster init` or `duet cluster join` on " +
		"this node first"
	if code := d.end(t, 0); code != exitConfig || lastLine(d.err.String()) != want || d.out.String() != "" {
		t.Errorf("exit %d\n%s", code, d.err.String())
	}
}

// TestMistakeEnds: a mistake ends the program with its own exit code and one line beside the flags that there are.
func TestMistakeEnds(t *testing.T) {
	d := start(t, "--sleepy=perhaps")
	const want = `duetd: invalid boolean value "perhaps" for -sleepy: parse error`
	if code := d.end(t, 0); code != exitUsage || lastLine(d.err.String()) != want ||
		strings.Count(d.err.String(), "duetd: ") != 1 || !strings.Contains(d.err.String(), "-sleepy") {
		t.Errorf("exit %d\n%s", code, d.err.String())
	}
}

// TestGuardLife: a guard that may not lock its memory says so and works; there is one in a directory; SIGTERM
// is its end.
func TestGuardLife(t *testing.T) {
	dir := home(t)
	args := []string{"guard", "--dir", dir, "--run", filepath.Join(dir, "run")}
	g := start(t, args...)
	g.says(t, "guard runs")
	if l := g.says(t, "memory cannot be locked: under memory pressure guests may be paused late"); l.Level != "WARN" ||
		l.Err == "" {
		t.Errorf("%+v", l)
	}
	waitFor(t, "its lock", func() bool { // that is held when its socket is there
		_, err := os.Stat(guard.Socket(filepath.Join(dir, "run")))
		return err == nil
	})
	second := start(t, args...)
	if code := second.end(t, 0); code != exitError || !strings.HasPrefix(lastLine(second.err.String()),
		"duetd: another guard runs in "+filepath.Join(dir, "run")+": ") {
		t.Errorf("a second one: exit %d\n%s", code, second.err.String())
	}
	for _, l := range g.log(t) {
		if l.Level == "ERROR" {
			t.Errorf("a node that is in no cluster yet is an error of the guard: %+v", l)
		}
	}
	if code := g.end(t, syscall.SIGTERM); code != 0 {
		t.Errorf("exit %d\n%s", code, g.err.String())
	}
}

// member makes a node that is a cluster of its own, on an address that no other test uses.
func member(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(home(t), "d")
	var at [3]byte
	_, _ = rand.Read(at[:])
	addrs, err := setup.ParseAddrs([]string{fmt.Sprintf("127.%d.%d.%d", 100+at[0]%100, at[1], 1+at[2]%250)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := (setup.OnDisk{}).Init(t.Context(), setup.InitRequest{Dir: dir, Cluster: "office", Node: "alpha",
		Addrs: addrs, Port: 7420, Detection: 2 * time.Second, Ping: []string{"127.0.0.1"}}); err != nil {
		t.Fatal(err)
	}
	own(t, filepath.Dir(dir))
	return dir
}

// TestDaemonLife: the daemon says what it may not do, where it runs, and at a signal that it stops; then its socket is
// gone and its exit code is 0. Nothing of that is on standard output.
func TestDaemonLife(t *testing.T) {
	dir := member(t)
	socket := filepath.Join(filepath.Dir(dir), "s")
	args := []string{"--dir", dir, "--socket", socket, "--run", filepath.Join(filepath.Dir(dir), "v"), "--listen",
		"127.0.0.1:0", "--guard", ""}
	d := start(t, args...)
	if runs := d.says(t, "duetd runs"); runs.Dir != dir || runs.Socket != socket || runs.Version == "" {
		t.Errorf("it runs as %+v", runs)
	}
	if l := d.says(t, "memory cannot be locked: under memory pressure heartbeats may be late"); l.Level != "WARN" ||
		l.Err == "" {
		t.Errorf("%+v", l)
	}
	if c, err := net.Dial("unix", socket); err != nil {
		t.Errorf("it runs and does not answer: %v", err)
	} else {
		_ = c.Close()
	}
	if code := d.end(t, syscall.SIGTERM); code != 0 || d.out.String() != "" {
		t.Errorf("exit %d\n%s%s", code, d.out.String(), d.err.String())
	}
	d.says(t, "duetd stops; VMs that are left go on when it is back")
	if _, err := os.Stat(socket); err == nil {
		t.Errorf("its socket is left")
	}
}

// TestDaemonWithoutTLS: an address that is none costs the API over TLS and is an error in the log; the daemon runs and
// ends at ctrl-C. With --log error nothing else is logged.
func TestDaemonWithoutTLS(t *testing.T) {
	dir := member(t)
	d := start(t, "--dir", dir, "--socket", filepath.Join(filepath.Dir(dir), "s"), "--run",
		filepath.Join(filepath.Dir(dir), "v"), "--listen", "nowhere", "--guard", "", "--log", "error")
	l := d.says(t, "the API is served on its unix socket only")
	if !strings.Contains(l.Err, "address nowhere: missing port in address") {
		t.Errorf("%+v", l)
	}
	code := d.end(t, syscall.SIGINT)
	for _, l := range d.log(t) {
		if l.Level != "ERROR" {
			t.Errorf("logged %+v", l)
		}
	}
	if code != 0 || d.out.String() != "" {
		t.Errorf("exit %d\n%s%s", code, d.out.String(), d.err.String())
	}
}

// TestPeers: a guard knows no peers until its node is a member, learns of it when it looks, says once that what it
// finds cannot be read, and forgets them at its end.
func TestPeers(t *testing.T) {
	dir := t.TempDir()
	var log output
	p := &peers{dir: dir, log: slog.New(slog.NewJSONHandler(&log, nil)), soon: make(chan struct{}, 1)}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		p.run(ctx)
	}()
	looked := func() { // twice: the second look is begun when the first one is over
		for range 2 {
			p.met()
			waitFor(t, "a look", func() bool { return len(p.soon) == 0 })
		}
	}
	ask := func() string {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		_, err := p.ask(ctx, "beta", "db")
		if err == nil {
			t.Fatal("beta has answered")
		}
		return err.Error()
	}
	const unknown = "the cluster is not known: no daemon was there yet"
	looked()
	if got := ask(); got != unknown || log.String() != "" {
		t.Errorf("without a cluster: %q, logged %s", got, log.String())
	}
	conf := filepath.Join(dir, membership.File)
	if err := errors.Join(os.WriteFile(conf+".new", []byte("{"), 0o600), os.Rename(conf+".new", conf)); err != nil {
		t.Fatal(err)
	}
	looked()
	looked()
	var l struct{ Level, Msg, Err string }
	if err := json.Unmarshal([]byte(log.String()), &l); err != nil || l.Level != "ERROR" || l.Err == "" ||
		l.Msg != "the cluster has changed and cannot be read: peers are asked as it was" {
		t.Errorf("half a file: %v, logged %s", err, log.String())
	}
	if got := ask(); got != unknown {
		t.Errorf("with half a file: %q", got)
	}
	made := member(t)
	at := time.Now().Add(-time.Hour).Truncate(time.Second)
	for _, name := range []string{pki.Folder, membership.File} {
		if err := os.Rename(filepath.Join(made, name), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	looked()
	if got := ask(); got == unknown {
		t.Errorf("as a member: %q", got)
	}
	// What could not be read for a moment is read again although nothing has changed.
	whole, err := os.ReadFile(conf)
	if err != nil {
		t.Fatal(err)
	}
	p.use(nil, nil)
	write := func(text []byte) {
		if err := errors.Join(os.WriteFile(conf, text, 0o600), os.Chtimes(conf, at, at)); err != nil {
			t.Fatal(err)
		}
		looked()
	}
	if write([]byte("{")); ask() != unknown {
		t.Error("it has read half a file")
	}
	if write(whole); ask() == unknown {
		t.Error("what could not be read once is not read again")
	}
	cancel()
	<-ended
	if got := ask(); got != unknown {
		t.Errorf("after the end: %q", got)
	}
}
