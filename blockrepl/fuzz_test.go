package blockrepl

import (
	"bytes"
	"encoding/binary"
	"net"
	"testing"

	"duet/blockrepl/wire"
)

// FuzzSuspects feeds the suspects of a welcome: whatever comes, no region beyond the
// end of the volume is taken.
func FuzzSuspects(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0}, 1)
	f.Add([]byte{255, 255, 255, 255, 1, 0, 0, 0, 0, 0, 0, 0}, 1)
	f.Add([]byte{1, 2, 3}, 7)
	f.Fuzz(func(t *testing.T, payload []byte, count int) {
		if len(payload) > 32<<10 {
			return
		}
		near, far := net.Pipe()
		sent := make(chan struct{})
		go func() {
			defer close(sent)
			c := wire.NewConn(far)
			c.Append(&wire.Header{Type: wire.Suspects}, payload)
			_ = c.Flush() // the reader may have had enough
			_ = c.Close()
		}()
		const size = 64 << 20
		c := wire.NewConn(near)
		got, err := readSuspects(c, Welcome{Size: size, Suspects: count % 1000})
		_ = c.Close()
		<-sent
		if err != nil {
			return
		}
		for id := range got {
			if int64(id)*ExtentSize >= size {
				t.Fatalf("extent %d lies beyond the end", id)
			}
		}
	})
}

// FuzzRefusal feeds the reason of a refusal; it is an error in any case.
func FuzzRefusal(f *testing.F) {
	f.Add([]byte(`{"epoch":3,"holder":"beta","reason":"over"}`))
	f.Add([]byte(`{`))
	f.Fuzz(func(t *testing.T, payload []byte) {
		if err := decodeRefusal(bytes.Clone(payload)); err == nil || err.Error() == "" {
			t.Fatal("a refusal without an error")
		}
	})
}

// FuzzCompare feeds the payload of a compare to the secondary's side.
func FuzzCompare(f *testing.F) {
	dev := newDisk(8 << 20)
	out := []byte{5, 0, 0, 0, 0, 0, 0, 0}
	good, _, err := appendSums(newObserved(dev, ""), 1, 5, make([]byte, runRegions*RegionSize), out)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(int64(ExtentSize), good)
	f.Add(int64(0), []byte{1})
	f.Fuzz(func(t *testing.T, off int64, payload []byte) {
		if off < 0 || off >= dev.Size() || off%ExtentSize != 0 {
			return // refused before
		}
		differs, _, _, err := compareSums(newObserved(dev, ""), off, payload, make([]byte, runRegions*RegionSize), nil)
		if err == nil && len(payload) >= 8 && differs&^binary.LittleEndian.Uint64(payload) != 0 {
			t.Fatal("regions differ that were not asked for")
		}
	})
}
