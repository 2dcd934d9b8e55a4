package engine

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"

	"duet/blockrepl"
)

// TestSaidOfALink: why a link ended or did not come about is told in words: a peer that is not ready yet is no failure,
// an end without a reason says nothing, and nothing is in the words of Go.
func TestSaidOfALink(t *testing.T) {
	e := &Engine{peer: "beta"}
	refused := &blockrepl.RefusedError{Refusal: blockrepl.Refusal{Epoch: 3, Holder: "alpha",
		Reason: "the module is WAIT (NotReady) on beta"}}
	dial := &net.OpError{Op: "dial", Net: "tcp", Addr: &net.TCPAddr{IP: net.IPv4(10, 0, 0, 2), Port: 7420},
		Err: os.NewSyscallError("connect", syscall.EHOSTUNREACH)}
	for _, c := range []struct {
		err  error
		want string
	}{
		{fmt.Errorf("the peer does not take part: %w", refused),
			"beta does not follow yet: the module is WAIT (NotReady) on beta"},
		{fmt.Errorf("session with beta ended: %w", io.EOF), ""},
		{nil, ""},
		{fmt.Errorf("beta is not reached: %w", dial), "beta is not reached: there is no way to 10.0.0.2:7420"},
		{blockrepl.ErrStalled, blockrepl.ErrStalled.Error()},
		{errors.New("frame of epoch 2"), "frame of epoch 2"},
	} {
		if got := e.said(c.err); got != c.want {
			t.Errorf("%v: %q, want %q", c.err, got, c.want)
		}
	}
	if strings.Contains(e.said(errors.Join(io.EOF, refused)), "EOF") {
		t.Error("a refusal after which the connection ended")
	}
}
