package cluster

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/url"
	"os"
	"strings"
	"syscall"
)

// Plain is what err says, for people: what the operating system and the libraries of Go say of a network or a file in
// it is said in words. The rest is as err has it. nil is nothing.
func Plain(err error) string {
	if err == nil {
		return ""
	}
	text := err.Error()
	if words := ofSystem(err); words != "" {
		return words
	}
	for _, inner := range unwrapped(err) {
		if inner != nil && inner.Error() != "" {
			text = strings.ReplaceAll(text, inner.Error(), Plain(inner))
		}
	}
	return text
}

// Worded is err, with Plain for its text.
func Worded(err error) error {
	if err == nil {
		return nil
	}
	return worded{err}
}

type worded struct{ error }

func (w worded) Error() string { return Plain(w.error) }

func (w worded) Unwrap() error { return w.error }

// Ended reports whether err only says that a connection has ended, on either side.
func Ended(err error) bool {
	for _, end := range []error{io.EOF, io.ErrUnexpectedEOF, net.ErrClosed, syscall.ECONNRESET, syscall.EPIPE,
		syscall.ECONNABORTED} {
		if errors.Is(err, end) {
			return true
		}
	}
	return false
}

// unwrapped are the errors that err wraps.
func unwrapped(err error) []error {
	switch x := err.(type) {
	case interface{ Unwrap() []error }:
		return x.Unwrap()
	case interface{ Unwrap() error }:
		return []error{x.Unwrap()}
	}
	return nil
}

// ofSystem is an error of the system in words, with where it was met; empty: err is none, or wraps one.
func ofSystem(err error) string {
	switch x := err.(type) {
	case *net.OpError:
		if x.Addr != nil && x.Op == "dial" {
			return dialed(x.Addr.String(), x.Err)
		}
		return Plain(x.Err)
	case *net.DNSError:
		return "the name " + x.Name + " is not known"
	case *url.Error:
		return Plain(x.Err)
	case *os.SyscallError:
		return Plain(x.Err)
	case *fs.PathError:
		return ofFile(x)
	}
	switch {
	case err == context.DeadlineExceeded, err == os.ErrDeadlineExceeded, err == syscall.ETIMEDOUT:
		return "no answer in time"
	case err == context.Canceled:
		return "it was called off"
	case err == syscall.ECONNREFUSED:
		return "nothing listens there"
	case err == syscall.EHOSTUNREACH, err == syscall.ENETUNREACH:
		return "there is no way to it"
	case len(unwrapped(err)) == 0 && Ended(err):
		return "the connection has ended"
	}
	return ""
}

// dialed says why nobody was met at an address.
func dialed(addr string, err error) string {
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return "nothing listens on " + addr
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return "there is no way to " + addr
	case errors.Is(err, fs.ErrNotExist):
		return "there is no " + addr
	}
	return addr + ": " + Plain(err)
}

// ofFile says what is wrong with a file.
func ofFile(err *fs.PathError) string {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return err.Path + " does not exist"
	case errors.Is(err, fs.ErrExist):
		return err.Path + " is there already"
	case errors.Is(err, fs.ErrPermission):
		return err.Path + " is not open to this user"
	case errors.Is(err, syscall.EISDIR):
		return err.Path + " is a directory"
	}
	return err.Path + ": " + Plain(err.Err)
}
