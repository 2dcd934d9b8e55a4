package chaos

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"duet/blockrepl"
	"duet/blockrepl/backing"
	"duet/blockrepl/blocktest"
	"duet/blockrepl/nbd"
	"duet/testbed/check"
	"duet/testbed/testcluster"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// forgetful acknowledges one write that it does not do.
type forgetful struct {
	*backing.Memory
	left atomic.Int64 // writes before that one
}

func (f *forgetful) WriteAt(p []byte, off int64) (int, error) {
	if f.left.Add(-1) == 0 {
		return len(p), nil
	}
	return f.Memory.WriteAt(p, off)
}

// lying acknowledges flushes that it does not do.
type lying struct{ *backing.Memory }

func (lying) Flush() error { return nil }

// serve offers a device by NBD until the returned function is called.
func serve(t *testing.T, dir, host string, dev blockrepl.Device) (end func()) {
	t.Helper()
	srv := nbd.New(nbd.Options{Socket: filepath.Join(dir, host), Name: "vda", Log: slog.New(slog.DiscardHandler)})
	if err := srv.Listen(); err != nil {
		t.Fatal(err)
	}
	q := blocktest.StartQueue(dev, 4)
	served := make(chan error, 1)
	go func() { served <- srv.Serve(q) }()
	return func() {
		if err := errors.Join(srv.Close(), <-served, q.Close()); err != nil {
			t.Error(err)
		}
	}
}

// written works on dev at one host and then at the other, as after a failover, and
// returns the paused, swept writer.
func written(ctx context.Context, t *testing.T, dev blockrepl.Device) *Writer {
	t.Helper()
	dir, err := os.MkdirTemp("", "chaos") // a short path
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	w := NewWriter(ctx, "vol", []string{testcluster.Alpha, testcluster.Beta},
		func(host string) (string, error) { return filepath.Join(dir, host), nil })
	t.Cleanup(w.Close)
	for i, host := range []string{testcluster.Alpha, testcluster.Beta} {
		end := serve(t, dir, host, dev)
		err := testcluster.Until(ctx, host+" is written to", func() error {
			if n := w.Acked(); n < 100*(i+1) {
				return fmt.Errorf("%d writes", n)
			}
			return nil
		})
		if host == testcluster.Beta {
			t.Cleanup(end) // it serves the sweep too
			err = errors.Join(err, w.Pause(ctx, testcluster.Until), w.Sweep())
		} else {
			end()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return w
}

// TestWriter: what a writer saw of a good disk is linearizable, history after history;
// of a disk that loses one write it is not.
func TestWriter(t *testing.T) {
	const size = firstByte + pages*page
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	t.Run("good disk", func(t *testing.T) {
		w := written(ctx, t, backing.NewMemory(size))
		for range 2 {
			past := w.History()
			if err := check.Linearizable(past.Ops, 10*time.Second); err != nil || len(past.Refused) != 0 {
				t.Fatalf("%v, refused %q", err, past.Refused)
			}
			w.Forget()
			if err := testcluster.Until(ctx, "it goes on", func() error {
				if w.Acked() < 50 {
					return errors.New("it does not")
				}
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(w.Pause(ctx, testcluster.Until), w.Sweep()); err != nil {
				t.Fatal(err)
			}
		}
	})
	t.Run("disk that loses writes", func(t *testing.T) {
		// One lost write may be overwritten before anybody reads it: some are tried.
		for i := range int64(20) {
			dev := &forgetful{Memory: backing.NewMemory(size)}
			dev.left.Store(50 + i)
			err := check.Linearizable(written(ctx, t, dev).History().Ops, 10*time.Second)
			if errors.Is(err, check.ErrNotLinearizable) {
				return
			}
		}
		t.Error("nobody noticed")
	})
}

// TestFlushes: what survives a power cut of a good disk is enough; of one that lies
// about flushes it is not.
func TestFlushes(t *testing.T) {
	const size = firstByte + pages*page
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for _, lies := range []bool{false, true} {
		mem := backing.NewMemory(size)
		var dev blockrepl.Device = mem
		if lies {
			dev = lying{mem}
		}
		past := written(ctx, t, dev).History()
		mem.PowerCut(func(int64) bool { return false })
		found := map[uint64]uint64{}
		b := make([]byte, page)
		for p := range pages - 1 {
			if _, err := mem.ReadAt(b, at(p)); err != nil {
				t.Fatal(err)
			}
			found[uint64(p)] = valueOf(b)
		}
		if lost := check.Survived(past.Ops, past.Flushes, found); (len(lost) != 0) != lies {
			t.Errorf("a disk that lies: %v; found missing: %v", lies, lost)
		}
	}
}

// TestUnprovenReads: a read after the last acknowledged write of its connection is not
// judged, and one before is.
func TestUnprovenReads(t *testing.T) {
	s := &session{proven: 10,
		ops: []check.Op{{Call: 1, Return: 2}, {Call: 11, Return: 12}, {Write: true, Call: 10, Return: 13}}}
	ops, _ := s.history()
	if ops[0].Unknown || !ops[1].Unknown || ops[2].Unknown {
		t.Errorf("%+v", ops)
	}
}
