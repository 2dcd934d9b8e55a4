package blocktest_test

import (
	"testing"

	"go.uber.org/goleak"

	"duet/blockrepl"
	"duet/blockrepl/backing"
	"duet/blockrepl/blocktest"
	"duet/blockrepl/memlog"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestPlainQueue(t *testing.T) {
	blocktest.Queue(t, func(t *testing.T) blockrepl.Queue {
		q := blocktest.StartQueue(backing.NewMemory(blocktest.DeviceSize), 4)
		t.Cleanup(func() { q.Close() })
		return q
	})
}

// Closing completes what is left with ErrClosed, and so does everything after.
func TestPlainQueueClose(t *testing.T) {
	dev := backing.NewFaulty(backing.NewMemory(blocktest.DeviceSize))
	hold := make(chan struct{})
	dev.Inject(backing.Fault{Hold: hold})
	q := blocktest.StartQueue(dev, 1)
	w := blocktest.NewWaiter()
	first, second, late := blocktest.Write(1, 0, 512), blocktest.Write(2, 0, 512), blocktest.Read(0, 512)
	for _, r := range []*blockrepl.Request{first, second} {
		r.By = w
		q.Submit(r)
	}
	q.Kick()
	closed := make(chan struct{})
	go func() {
		q.Close()
		late.By = w
		q.Submit(late)
		close(closed)
	}()
	close(hold)
	<-closed
	errs := w.Wait(t, first, second, late)
	if errs[2] != blockrepl.ErrClosed {
		t.Errorf("after close: %v", errs[2])
	}
}

// closing is a device that is closed by a read that does not want to wait.
type closing struct {
	blockrepl.Device
	close func()
}

func (d *closing) TryReadAt([]byte, int64) bool {
	d.close()
	return false
}

// A read that comes back from the device when the queue is closed finds no worker: it is told so.
func TestPlainQueueClosedByARead(t *testing.T) {
	dev := &closing{Device: backing.NewMemory(blocktest.DeviceSize)}
	q := blocktest.StartQueue(dev, 1)
	dev.close = func() { q.Close() }
	w := blocktest.NewWaiter()
	r := blocktest.Read(0, 512)
	r.By = w
	q.Submit(r)
	q.Kick()
	if errs := w.Wait(t, r); errs[0] != blockrepl.ErrClosed {
		t.Errorf("it ends with %v", errs[0])
	}
}

func TestDirtyLogInMemory(t *testing.T) {
	blocktest.DirtyLog(t, func(t *testing.T) (blockrepl.DirtyLog, func() blockrepl.DirtyLog) {
		log := memlog.New()
		t.Cleanup(log.Close)
		return log, func() blockrepl.DirtyLog { return log }
	})
}
