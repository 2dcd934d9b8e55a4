package watchdog

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// kernel is the driver of a device: what Device says to it, in order.
type kernel struct {
	calls   []string
	timeout int            // seconds
	most    int            // seconds
	fails   map[string]int // how many times a call fails
}

func (k *kernel) call(name string) error {
	k.calls = append(k.calls, name)
	if k.fails[name] > 0 {
		k.fails[name]--
		return errors.New(name + " failed")
	}
	return nil
}

func (k *kernel) SetTimeout(seconds int) error {
	if err := k.call(fmt.Sprint("set ", seconds)); err != nil {
		return err
	}
	k.timeout = min(max(seconds, k.timeout), k.most)
	return nil
}

func (k *kernel) Timeout() (int, error)           { return k.timeout, k.call("get") }
func (k *kernel) Keepalive() error                { return k.call("feed") }
func (k *kernel) Write(p []byte) (n int, e error) { return len(p), k.call("write " + string(p)) }
func (k *kernel) Close() error                    { return k.call("close") }

func TestArm(t *testing.T) {
	for name, c := range map[string]struct {
		kernel kernel
		want   time.Duration // 0: refused
		calls  string
	}{
		"takes it":          {kernel{most: 600}, 30 * time.Second, "set 30, get, feed"},
		"rounds up":         {kernel{timeout: 32, most: 600}, 32 * time.Second, "set 30, get, feed"},
		"cannot do more":    {kernel{most: 15}, 0, "set 30, get, write V, close"},
		"fixed and enough":  {kernel{timeout: 60, fails: map[string]int{"set 30": 1}}, 60 * time.Second, "set 30, get, feed"},
		"fixed and short":   {kernel{timeout: 10, fails: map[string]int{"set 30": 1}}, 0, "set 30, get, write V, close"},
		"does not say":      {kernel{most: 600, fails: map[string]int{"get": 1}}, 0, "set 30, get, write V, close"},
		"cannot be fed":     {kernel{most: 600, fails: map[string]int{"feed": 1}}, 0, "set 30, get, feed, write V, close"},
		"not even disarmed": {kernel{most: 15, fails: map[string]int{"write V": 1}}, 0, "set 30, get, write V"},
	} {
		t.Run(name, func(t *testing.T) {
			d, err := arm(&c.kernel, 30*time.Second)
			if (err == nil) != (c.want != 0) || (err == nil && d.Timeout() != c.want) {
				t.Errorf("%v, %v", d, err)
			}
			if (d != nil) == strings.HasSuffix(c.calls, "close") { // armed still: somebody has to feed it
				t.Errorf("%v is returned, %v", d, err)
			}
			if got := strings.Join(c.kernel.calls, ", "); got != c.calls {
				t.Errorf("calls %s, want %s", got, c.calls)
			}
			if failed := c.kernel.fails != nil && c.kernel.fails["write V"] > 0; failed {
				t.Error("the fault was not used")
			}
		})
	}
}

func TestDisarm(t *testing.T) {
	k := &kernel{most: 600, fails: map[string]int{"write V": 1}}
	d, err := arm(k, 30*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Disarm(); err == nil {
		t.Error("a failed disarm is not told")
	}
	if err := d.Keepalive(); err != nil {
		t.Errorf("still armed, but cannot be fed: %v", err)
	}
	for range 2 {
		if err := d.Disarm(); err != nil {
			t.Error(err)
		}
	}
	if err := d.Keepalive(); err == nil {
		t.Error("fed although disarmed")
	}
	if got, want := strings.Join(k.calls, ", "), "set 30, get, feed, write V, feed, write V, close"; got != want {
		t.Errorf("calls %s, want %s", got, want)
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	plain := filepath.Join(dir, "plain")
	if err := os.WriteFile(plain, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		path    string
		timeout time.Duration
	}{
		"missing":        {filepath.Join(dir, "none"), time.Minute},
		"a plain file":   {plain, time.Minute},
		"no timeout":     {plain, 0},
		"half seconds":   {plain, 1500 * time.Millisecond},
		"a whole day":    {plain, 24 * time.Hour},
		"another device": {os.DevNull, time.Minute},
	} {
		if d, err := Open(c.path, c.timeout); err == nil {
			t.Errorf("%s: %v", name, d)
		}
	}
}
