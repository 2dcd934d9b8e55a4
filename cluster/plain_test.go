package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"duet/cluster"
)

// TestPlain: what the system says of a network or a file reaches people in words, wherever it is wrapped; what this
// program says itself stays as it is.
func TestPlain(t *testing.T) {
	at := &net.TCPAddr{IP: net.IPv4(10, 77, 1, 14), Port: 7425}
	dial := func(err error) error {
		return &net.OpError{Op: "dial", Net: "tcp", Addr: at, Err: os.NewSyscallError("connect", err)}
	}
	gone := filepath.Join(t.TempDir(), "nonexist")
	_, openErr := os.Open(gone)
	_, sockErr := net.Dial("unix", gone)
	for _, c := range []struct {
		err  error
		want string
	}{
		{fmt.Errorf("connect: %w", dial(syscall.EHOSTUNREACH)), "connect: there is no way to 10.77.1.14:7425"},
		{fmt.Errorf("connect: %w", dial(syscall.ECONNREFUSED)), "connect: nothing listens on 10.77.1.14:7425"},
		{dial(os.ErrDeadlineExceeded), "10.77.1.14:7425: no answer in time"},
		{&url.Error{Op: "Post", URL: "http://witness/token", Err: sockErr}, "there is no " + gone},
		{&net.OpError{Op: "read", Net: "tcp", Err: syscall.ECONNRESET}, "the connection has ended"},
		{fmt.Errorf("session with beta ended: %w", io.EOF), "session with beta ended: the connection has ended"},
		{fmt.Errorf("ask beta: %w", errors.Join(context.DeadlineExceeded, io.EOF)),
			"ask beta: no answer in time\nthe connection has ended"},
		{openErr, gone + " does not exist"},
		{&os.PathError{Op: "open", Path: "/x", Err: os.ErrPermission}, "/x is not open to this user"},
		{&net.DNSError{Name: "wit.example", Err: "no such host"}, "the name wit.example is not known"},
		{errors.New("the peer said EOF"), "the peer said EOF"},
		{nil, ""},
	} {
		if got := cluster.Plain(c.err); got != c.want {
			t.Errorf("%v: %q, want %q", c.err, got, c.want)
		}
		if w := cluster.Worded(c.err); c.err != nil && (w.Error() != c.want || !errors.Is(w, c.err)) {
			t.Errorf("%v: worded it is %q", c.err, w)
		}
	}
	if cluster.Worded(nil) != nil || !cluster.Ended(fmt.Errorf("x: %w", io.EOF)) || cluster.Ended(context.Canceled) {
		t.Error("what is no error, or no end")
	}
	for _, raw := range []string{"dial tcp", "EOF", "deadline exceeded", "no route", "refused"} {
		if got := cluster.Plain(fmt.Errorf("x: %w", errors.Join(dial(syscall.EHOSTUNREACH), dial(syscall.ECONNREFUSED),
			io.EOF, context.DeadlineExceeded))); strings.Contains(got, raw) {
			t.Errorf("%q has %q", got, raw)
		}
	}
}
