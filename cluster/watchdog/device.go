package watchdog

import (
	"errors"
	"fmt"
	"sync"
	"time"
)

// ErrNoWayOut is returned for a device that cannot be disarmed once it was opened.
var ErrNoWayOut = errors.New("the watchdog's driver is loaded with nowayout, so that each stop of the daemon would " +
	"reset this node: load it with nowayout=0")

// maxTimeout is far above what devices can do.
const maxTimeout = time.Hour

// timer is what a kernel offers of one watchdog, in whole seconds. Opening it armed it.
type timer interface {
	// SetTimeout asks for a timeout; devices round it.
	SetTimeout(seconds int) error
	Timeout() (seconds int, err error)
	Keepalive() error
	// Write of a V makes Close disarm the device.
	Write(p []byte) (int, error)
	Close() error
}

// Device is an armed watchdog: without Keepalive at least every Timeout it resets this computer. Its
// methods may be called by several goroutines.
type Device struct {
	mu      sync.Mutex
	timer   timer // nil once disarmed
	timeout time.Duration
}

// Open opens the device at path, which arms it, and sets its timeout, in whole seconds. It fails, and
// leaves the device disarmed, if the device cannot wait as long; a device may wait longer: see Timeout. A device that
// comes with an error could not be disarmed: it has to be fed until Disarm succeeds, or this computer is reset.
// Errors of the system are wrapped; on systems other than Linux the error is errors.ErrUnsupported.
func Open(path string, timeout time.Duration) (Dog, error) {
	if timeout < time.Second || timeout > maxTimeout || timeout%time.Second != 0 {
		return nil, fmt.Errorf("open watchdog %s: timeout %s: must be whole seconds from 1s to %s", path, timeout, maxTimeout)
	}
	t, err := open(path)
	if err != nil {
		return nil, fmt.Errorf("open watchdog %s: %w", path, err)
	}
	d, err := arm(t, timeout)
	if err != nil {
		err = fmt.Errorf("open watchdog %s: %w", path, err)
	}
	return d, err
}

// arm sets the timeout of an open device, or disarms it; see Open.
func arm(t timer, timeout time.Duration) (Dog, error) {
	d := &Device{timer: t}
	err := d.setTimeout(timeout)
	if err == nil {
		err = t.Keepalive() // counts from now on
	}
	if err == nil {
		return d, nil
	}
	if stuck := d.Disarm(); stuck != nil {
		return d, errors.Join(err, stuck)
	}
	return nil, err
}

// setTimeout trusts only what the device says afterwards. Some have a fixed timeout: it may be long enough.
func (d *Device) setTimeout(want time.Duration) error {
	refused := d.timer.SetTimeout(int(want / time.Second))
	seconds, err := d.timer.Timeout()
	if err != nil {
		return errors.Join(refused, fmt.Errorf("read the timeout: %w", err))
	}
	d.timeout = time.Duration(seconds) * time.Second
	switch {
	case d.timeout >= want:
		return nil
	case refused != nil:
		return fmt.Errorf("set the timeout to %s: %w; it is %s", want, refused, d.timeout)
	}
	return fmt.Errorf("the timeout became %s instead of %s: the device cannot do more", d.timeout, want)
}

// Timeout is the device's own, at least that asked for.
func (d *Device) Timeout() time.Duration { return d.timeout }

// Keepalive starts the timeout anew. After an error the timer goes on from the last time that succeeded.
func (d *Device) Keepalive() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timer == nil {
		return errors.New("feed watchdog: it is disarmed")
	}
	if err := d.timer.Keepalive(); err != nil {
		return fmt.Errorf("feed watchdog: %w", err)
	}
	return nil
}

// Disarm stops the timer and closes the device. After an error of the first step the device is still armed and
// Disarm can be tried again; a disarmed device is no error.
func (d *Device) Disarm() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timer == nil {
		return nil
	}
	if _, err := d.timer.Write([]byte("V")); err != nil {
		return fmt.Errorf("disarm watchdog: %w", err)
	}
	err := d.timer.Close()
	d.timer = nil // closed, whatever it said
	if err != nil {
		return fmt.Errorf("disarm watchdog: %w", err)
	}
	return nil
}
