package witness

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestWords: an admin reads what became of the way to a witness, and no text of the system.
func TestWords(t *testing.T) {
	refused := &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	for _, c := range []struct {
		err  error
		want string
	}{
		{refused, "its computer is up, duetd-witness does not run there"},
		{os.NewSyscallError("connect", syscall.EHOSTUNREACH), "there is no way to its computer"},
		{context.DeadlineExceeded, "it does not answer in time"},
		{&net.DNSError{Err: "no such host", Name: "w.lan"}, "the name w.lan is not known here"},
		{fmt.Errorf("%w: xyz", ErrWrongWitness), "another witness answers: its key is not the one that was registered"},
		{&refusal{ErrRemoved, "the node was removed: rejoin"}, "the node was removed: rejoin"},
		{errors.New("EOF"), "the connection to it broke"},
	} {
		if got := Words(fmt.Errorf("call witness 10.0.0.9:7425: connect: %w", c.err)); got != c.want {
			t.Errorf("%v: %q, want %q", c.err, got, c.want)
		}
	}
}

// TestWordsOfCalls: the same of calls that fail for real.
func TestWordsOfCalls(t *testing.T) {
	b := newBench(t)
	c := b.town()
	cl := c.client("alpha", "")
	ctx, cancel := context.WithDeadline(t.Context(), time.Unix(1, 0))
	defer cancel()
	if _, err := cl.Hello(ctx); err == nil || Words(err) != "it does not answer in time" {
		t.Errorf("late: %v", err)
	}
	c.stop()
	_, err := c.client("alpha", "").Hello(t.Context())
	if err == nil || !strings.HasPrefix(Words(err), "its computer is up") {
		t.Errorf("stopped: %v", err)
	}
}
