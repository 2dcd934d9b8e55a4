package divergence

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"duet/blockrepl"
	"duet/blockrepl/backing"
)

// benchImage is a file full of data. DUET_BENCH_DIR names a directory on the disk to measure.
func benchImage(b *testing.B, size int64) (*backing.File, string) {
	b.Helper()
	dir, err := os.MkdirTemp(os.Getenv("DUET_BENCH_DIR"), "aside")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = os.RemoveAll(dir) })
	f, err := backing.CreateFile(filepath.Join(dir, "image"), size)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = f.Close() })
	p := make([]byte, 1<<20)
	for off := int64(0); off < size; off += int64(len(p)) {
		for i := range p {
			p[i] = byte(i) | 1
		}
		if _, err := f.WriteAt(p, off); err != nil {
			b.Fatal(err)
		}
	}
	if err := f.Flush(); err != nil {
		b.Fatal(err)
	}
	return f, dir
}

// BenchmarkOverwrite is what a 4 KiB write to a saved region costs. Raw and wrapped take
// turns, so that what else the computer does strikes both; medians are reported.
func BenchmarkOverwrite(b *testing.B) {
	const size, turn = 64 << 20, 50
	f, dir := benchImage(b, size)
	dev := wrap(b, f, begin(b, dir, size))
	overwrite(b, dev, 1<<20, 1)
	rng := rand.New(rand.NewPCG(1, 1))
	p := make([]byte, 4096)
	var took [2][]float64
	for b.Loop() {
		for k, d := range []blockrepl.Device{f, dev} {
			begun := time.Now()
			for range turn {
				if _, err := d.WriteAt(p, rng.Int64N(size/4096)*4096); err != nil {
					b.Fatal(err)
				}
			}
			took[k] = append(took[k], float64(time.Since(begun).Nanoseconds())/turn)
		}
	}
	for k := range took {
		slices.Sort(took[k])
	}
	raw, wrapped := took[0][len(took[0])/2], took[1][len(took[1])/2]
	b.ReportMetric(raw, "raw-ns/write")
	b.ReportMetric(wrapped, "wrapped-ns/write")
	b.ReportMetric((wrapped/raw-1)*100, "%overhead")
}

// BenchmarkTest is the part of a write that Device adds, alone.
func BenchmarkTest(b *testing.B) {
	const size = 64 << 20
	base := backing.NewMemory(size)
	dev := wrap(b, base, begin(b, b.TempDir(), size))
	overwrite(b, dev, 1<<20, 1)
	b.RunParallel(func(pb *testing.PB) {
		for off := int64(0); pb.Next(); off = (off + 4096) % size {
			dev.mu.RLock()
			err := dev.save(off, 4096)
			dev.mu.RUnlock()
			if err != nil {
				b.Error(err)
			}
		}
	})
}

// BenchmarkFirstOverwrite is a resync over regions that are not saved yet, as large as
// one frame of it, with the given number of workers; also the raw image.
func BenchmarkFirstOverwrite(b *testing.B) {
	const size = 256 << 20
	for _, frame := range []int64{blockrepl.RegionSize, 8 * blockrepl.RegionSize} {
		for _, workers := range []int{0, 1, 2, 4, 16} {
			name := fmt.Sprintf("%dKiB/workers=%d", frame>>10, workers)
			if workers == 0 {
				name = fmt.Sprintf("%dKiB/raw", frame>>10)
			}
			b.Run(name, func(b *testing.B) {
				f, dir := benchImage(b, size)
				b.SetBytes(size)
				for b.Loop() {
					b.StopTimer()
					var dev blockrepl.Device = f
					if workers > 0 {
						dev = wrap(b, f, begin(b, dir, size))
					}
					b.StartTimer()
					overwrite(b, dev, frame, max(workers, 1))
				}
			})
		}
	}
}

func overwrite(b *testing.B, dev blockrepl.Device, frame int64, workers int) {
	var next atomic.Int64
	var all sync.WaitGroup
	for range workers {
		all.Go(func() {
			p := make([]byte, frame)
			for {
				off := (next.Add(1) - 1) * frame
				if off >= dev.Size() {
					return
				}
				if _, err := dev.WriteAt(p, off); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
}
