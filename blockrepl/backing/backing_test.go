package backing_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"

	"go.uber.org/goleak"

	"duet/blockrepl"
	"duet/blockrepl/backing"
	"duet/blockrepl/blocktest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestMemory(t *testing.T) {
	blocktest.Device(t, func(*testing.T) blockrepl.Device { return backing.NewMemory(blocktest.DeviceSize) })
}

func TestFaultyPassesThrough(t *testing.T) {
	blocktest.Device(t, func(*testing.T) blockrepl.Device {
		return backing.NewFaulty(backing.NewMemory(blocktest.DeviceSize))
	})
}

// After a power cut every sector is as it was at the last flush or as it was
// written later, and nothing else; with nil, all as at the flush.
func TestPowerCut(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	m := backing.NewMemory(1 << 20)
	flushed := make([]byte, m.Size())
	for round := range 30 {
		latest := bytes.Clone(flushed)
		for range 20 {
			n := int64(1+rng.IntN(300)) * blockrepl.Sector
			off := rng.Int64N((m.Size()-n)/blockrepl.Sector+1) * blockrepl.Sector
			b := byte(rng.Uint32())
			p := bytes.Repeat([]byte{b}, int(n))
			switch rng.IntN(4) {
			case 0:
				clear(p)
				if err := m.Discard(off, n); err != nil {
					t.Fatal(err)
				}
			case 1:
				clear(p)
				if err := m.Zero(off, n); err != nil {
					t.Fatal(err)
				}
			default:
				if _, err := m.WriteAt(p, off); err != nil {
					t.Fatal(err)
				}
			}
			copy(latest[off:], p)
		}
		want := bytes.Clone(flushed)
		keep := func(off int64) bool { return false }
		switch round % 3 {
		case 0:
			if err := m.Flush(); err != nil {
				t.Fatal(err)
			}
			want = latest
		case 1:
			kept := rand.New(rand.NewPCG(uint64(round), 1))
			keep = func(off int64) bool {
				yes := kept.IntN(2) == 0
				if yes {
					copy(want[off:off+blockrepl.Sector], latest[off:])
				}
				return yes
			}
		}
		m.PowerCut(keep)
		got := make([]byte, m.Size())
		if _, err := m.ReadAt(got, 0); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Fatalf("round %d: wrong content after the power cut", round)
		}
		flushed = want
	}
}

func TestFaults(t *testing.T) {
	broken := errors.New("broken")
	d := backing.NewFaulty(backing.NewMemory(1 << 20))
	p := make([]byte, 4096)
	write := func(off int64) error { _, err := d.WriteAt(p, off); return err }
	read := func(off int64) error { _, err := d.ReadAt(p, off); return err }

	remove := d.Inject(backing.Fault{Ops: []blockrepl.Op{blockrepl.OpWrite}, Off: 8192, Len: 4096, Err: broken})
	for off, want := range map[int64]error{
		0: nil, 4096: nil, 8192: broken, 12288: nil, 8192 - 512: broken, 12288 - 512: broken,
	} {
		if err := write(off); err != want {
			t.Errorf("write at %d: %v, want %v", off, err, want)
		}
	}
	if err := read(8192); err != nil {
		t.Errorf("read: %v", err)
	}
	remove()
	if err := write(8192); err != nil {
		t.Errorf("after removal: %v", err)
	}

	d.Inject(backing.Fault{Ops: []blockrepl.Op{blockrepl.OpFlush}, After: 1, Times: 2, Err: broken})
	for i, want := range []error{nil, broken, broken, nil} {
		if err := d.Flush(); err != want {
			t.Errorf("flush %d: %v, want %v", i, err, want)
		}
	}
	d.Inject(backing.Fault{Ops: []blockrepl.Op{blockrepl.OpRead}, Times: 1, Err: broken})
	if d.TryReadAt(p, 0) {
		t.Error("a fast read went past a fault")
	}
	if err := read(0); err != broken {
		t.Errorf("read: %v", err)
	}
	if !d.TryReadAt(p, 0) {
		t.Error("no fast read without a fault")
	}
	hold := make(chan struct{})
	d.Inject(backing.Fault{Hold: hold, Times: 1})
	done := make(chan error)
	go func() { done <- write(0) }()
	select {
	case <-done:
		t.Error("a held write went on")
	default:
	}
	close(hold)
	if err := <-done; err != nil {
		t.Errorf("held write: %v", err)
	}
}
