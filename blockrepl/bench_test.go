package blockrepl

import (
	"net"
	"sync"
	"testing"
)

// transports are the ways two nodes are connected in tests.
func transports(t testing.TB) map[string]func() (net.Conn, net.Conn) {
	return map[string]func() (net.Conn, net.Conn){
		"pipe": net.Pipe,
		"tcp":  func() (net.Conn, net.Conn) { return loopback(t) },
		"tls":  func() (net.Conn, net.Conn) { return secured(t) },
	}
}

// null is a Device that costs nothing, to measure what is above it.
type null struct{ size int64 }

func (d null) ReadAt(p []byte, _ int64) (int, error)  { return len(p), nil }
func (d null) TryReadAt([]byte, int64) bool           { return true }
func (d null) WriteAt(p []byte, _ int64) (int, error) { return len(p), nil }
func (d null) Discard(_, _ int64) error               { return nil }
func (d null) Zero(_, _ int64) error                  { return nil }
func (d null) Flush() error                           { return nil }
func (d null) Size() int64                            { return d.size }
func (d null) Data(off int64) (int64, int64, error)   { return d.size, d.size, nil }

// loadgen keeps a number of requests in flight, as a frontend does.
type loadgen struct {
	mu   sync.Mutex
	cond sync.Cond
	free []*Request
}

func (g *loadgen) Complete(r *Request, err error) {
	if err != nil {
		panic(err)
	}
	g.mu.Lock()
	g.free = append(g.free, r)
	g.mu.Unlock()
}

func (g *loadgen) CompleteBatch() { g.cond.Signal() }

func (g *loadgen) run(b *testing.B, p *Primary, depth, size int, op Op) {
	g.cond.L = &g.mu
	data := make([]byte, size)
	for range depth {
		g.free = append(g.free, &Request{Op: op, Len: int64(size), Data: data, By: g})
	}
	var taken []*Request
	var at int64
	b.SetBytes(int64(size))
	b.ReportAllocs()
	b.ResetTimer()
	for n := 0; n < b.N; {
		g.mu.Lock()
		for len(g.free) == 0 {
			g.cond.Wait()
		}
		taken = append(taken[:0], g.free...)
		g.free = g.free[:0]
		g.mu.Unlock()
		for _, r := range taken {
			at = (at + 7919*4096) % (p.Size() - int64(size))
			r.Off = at &^ 4095
			p.Submit(r)
			n++
		}
		p.Kick()
	}
	g.mu.Lock()
	for len(g.free) < depth {
		g.cond.Wait()
	}
	g.mu.Unlock()
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "io/s")
}

func BenchmarkWrite(b *testing.B) {
	for _, c := range []struct {
		name        string
		depth, size int
	}{{"4K/QD1", 1, 4096}, {"4K/QD32", 32, 4096}, {"1M/QD8", 8, 1 << 20}} {
		for _, transport := range []string{"tcp", "tls"} {
			b.Run(c.name+"/"+transport, func(b *testing.B) {
				q := newPair(b, 0)
				q.a.dev, q.b.dev = null{1 << 30}, null{1 << 30}
				q.dial = transports(b)[transport]
				q.up()
				new(loadgen).run(b, q.p, c.depth, c.size, OpWrite)
			})
		}
	}
}
