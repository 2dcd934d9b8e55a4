//go:build linux && cgo && libvirt_dlopen

package libvirt

import (
	"context"
	"errors"
	"fmt"
	"time"

	"libvirt.org/go/libvirt"

	"duet/vmmanager"
)

// keepalive: libvirtd is given up after 2 s · (3+1) without an answer.
const (
	keepaliveInterval = 2
	keepaliveCount    = 3
)

// ask runs f on a connection of its own and returns what it returns, with
// libvirt's errors told in the words of vmmanager. libvirt's calls cannot be
// cancelled, so when ctx or the limit ends first, ask returns and f goes on alone;
// Close waits for it. What f has asked libvirtd for may then still happen: whoever gives a change up looks at the
// VM anew. f runs on another goroutine, so it hands results back by what it returns: a variable that it shares with
// its caller is only safe to read when ask has returned no error.
func ask[T any](ctx context.Context, h *Hypervisor, limit time.Duration, f func(*libvirt.Connect) (T, error)) (T,
	error) {
	type answer struct {
		value T
		err   error
	}
	var none T
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	// Room for the answer that nobody waits for any more.
	done := make(chan answer, 1)
	err := h.spawn(limited, func(conn *libvirt.Connect) {
		value, err := f(conn)
		done <- answer{value, err}
		conn.Close()
	}, func(err error) { done <- answer{none, err} })
	if err != nil {
		return none, err
	}
	select {
	case a := <-done:
		return a.value, translate(a.err)
	case <-limited.Done():
		if ctx.Err() != nil {
			return none, ctx.Err()
		}
		return none, fmt.Errorf("%w: libvirtd did not answer within %s", vmmanager.ErrUnavailable, limit)
	}
}

// spawn opens a connection in a goroutine of its own and gives it to use, which
// owns it; or it tells failed why there is none. Once ctx has ended neither
// a connection is opened nor use called. Exactly one of the two is called, on that goroutine, unless spawn itself
// returns an error: then neither is.
func (h *Hypervisor) spawn(ctx context.Context, use func(*libvirt.Connect), failed func(error)) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return fmt.Errorf("%w: closed", vmmanager.ErrUnavailable)
	}
	h.calls.Add(1)
	go func() {
		defer h.calls.Done()
		conn, err := h.dial(ctx)
		if err != nil {
			failed(err)
			return
		}
		use(conn)
	}()
	return nil
}

// dial opens a connection. It may block as long as libvirtd hangs; the slots bound how many do. ctx is looked at
// before and after that, since nothing can end it.
func (h *Hypervisor) dial(ctx context.Context) (*libvirt.Connect, error) {
	select {
	case h.dials <- struct{}{}:
		defer func() { <-h.dials }()
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: libvirtd accepts no connection", vmmanager.ErrUnavailable)
	}
	conn, err := libvirt.NewConnect(h.uri)
	if err != nil {
		return nil, fmt.Errorf("%w: connect to %s: %s", vmmanager.ErrUnavailable, h.uri, message(err))
	}
	// Drivers inside this process (test, embed) have no keepalive and need none.
	if err := conn.SetKeepAlive(keepaliveInterval, keepaliveCount); err != nil && !hasCode(err, libvirt.ERR_NO_SUPPORT) {
		conn.Close()
		return nil, fmt.Errorf("%w: set keepalive: %s", vmmanager.ErrUnavailable, message(err))
	}
	if ctx.Err() != nil {
		conn.Close()
		return nil, ctx.Err()
	}
	return conn, nil
}

// of is ask for what one VM says. The handle is freed when f returns. ErrNotFound if there is no such VM.
func of[T any](ctx context.Context, h *Hypervisor, name string, limit time.Duration,
	f func(*libvirt.Domain) (T, error)) (T, error) {
	return ask(ctx, h, limit, func(conn *libvirt.Connect) (T, error) {
		dom, err := conn.LookupDomainByName(name)
		if err != nil {
			var none T
			return none, err
		}
		defer dom.Free()
		return f(dom)
	})
}

// onDomain is ask for a call on one VM. The handle is freed when f returns. ErrNotFound if there is no such VM.
func (h *Hypervisor) onDomain(ctx context.Context, name string, limit time.Duration,
	f func(*libvirt.Domain) error) error {
	return h.with(ctx, name, limit, func(_ *libvirt.Connect, dom *libvirt.Domain) error { return f(dom) })
}

// with is onDomain for a call that needs the connection too.
func (h *Hypervisor) with(ctx context.Context, name string, limit time.Duration,
	f func(*libvirt.Connect, *libvirt.Domain) error) error {
	_, err := ask(ctx, h, limit, func(conn *libvirt.Connect) (struct{}, error) {
		dom, err := conn.LookupDomainByName(name)
		if err != nil {
			return struct{}{}, err
		}
		defer dom.Free()
		return struct{}{}, f(conn, dom)
	})
	return err
}

// translate tells a libvirt error in the words of vmmanager and keeps it in the chain. ErrNotFound: no such VM.
// ErrUnavailable: the connection could not be opened, or was lost under the call, which may have been carried out.
// All others are what libvirt refuses, in its words.
func translate(err error) error {
	var le libvirt.Error
	if !errors.As(err, &le) {
		return err
	}
	switch {
	case le.Code == libvirt.ERR_NO_DOMAIN:
		return fmt.Errorf("%w: %w", vmmanager.ErrNotFound, plain{le})
	case le.Code == libvirt.ERR_RPC, le.Code == libvirt.ERR_NO_CONNECT, le.Code == libvirt.ERR_INVALID_CONN,
		le.Domain == libvirt.FROM_RPC, le.Code == libvirt.ERR_SYSTEM_ERROR && le.Domain == libvirt.FROM_REMOTE:
		return fmt.Errorf("%w: %w", vmmanager.ErrUnavailable, plain{le})
	}
	return plain{le}
}

// plain is a libvirt error that prints its message only.
type plain struct{ err libvirt.Error }

// Error returns libvirt's message without its numbers.
func (p plain) Error() string { return p.err.Message }

// Unwrap returns the error with its code.
func (p plain) Unwrap() error { return p.err }

// message is libvirt's text of an error, with the words of vmmanager where it has some.
func message(err error) string { return translate(err).Error() }

// hasCode looks through what translate has wrapped.
func hasCode(err error, code libvirt.ErrorNumber) bool {
	var le libvirt.Error
	return errors.As(err, &le) && le.Code == code
}
