package check

import (
	"errors"
	"math/rand/v2"
	"testing"
	"time"
)

// seq returns from..to.
func seq(from, to uint64) []uint64 {
	var ns []uint64
	for n := from; n <= to; n++ {
		ns = append(ns, n)
	}
	return ns
}

// disk returns a disk on which each boot wrote up to the number given.
func disk(first uint64, runs ...any) Disk {
	d := Disk{First: first, Boots: map[uint64]string{}}
	n := first
	for i := 0; i < len(runs); i += 2 {
		for ; n <= uint64(runs[i+1].(int)); n++ {
			d.Boots[n] = runs[i].(string)
			d.Last = n
		}
	}
	return d
}

func without(d Disk, n uint64) Disk { delete(d.Boots, n); return d }

func TestHistory(t *testing.T) {
	boot := func(id string, last, acked uint64) Boot {
		return Boot{ID: id, Scanned: true, Last: last, Acks: seq(last+1, acked)}
	}
	flushed := func(b Boot, n uint64) Boot { b.Flushes = []uint64{n}; return b }
	missing := func(b Boot, n ...uint64) Boot { b.Holes = n; return b }
	on := func(where string, boots ...Boot) Console { return Console{where, boots} }
	tests := []struct {
		name     string
		consoles []Console
		disk     Disk
		promise  Promise
		want     Rule
	}{
		{name: "nothing happened", disk: disk(0)},
		{name: "failover", consoles: []Console{on("alpha", boot("A", 0, 20)), on("beta", boot("B", 20, 40))},
			disk: disk(1, "A", 20, "B", 40)},
		{name: "there and back",
			consoles: []Console{on("alpha", boot("A", 0, 20), boot("C", 41, 50)), on("beta", boot("B", 20, 40))},
			disk:     disk(1, "A", 20, "B", 41, "C", 50)},
		{name: "written but not acknowledged",
			consoles: []Console{on("alpha", boot("A", 0, 20)), on("beta", boot("B", 21, 40))},
			disk:     disk(1, "A", 21, "B", 41)},
		{name: "a boot that never wrote",
			consoles: []Console{on("alpha", boot("A", 0, 20)), on("beta", boot("B", 20, 20), boot("C", 20, 40))},
			disk:     disk(1, "A", 20, "C", 40)},
		{name: "the disk went round", consoles: []Console{on("alpha", boot("A", 0, 200))}, disk: disk(101, "A", 200)},
		{name: "newest lost", consoles: []Console{on("alpha", boot("A", 0, 20))}, disk: disk(1, "A", 19), want: Lost},
		{name: "one lost", consoles: []Console{on("alpha", boot("A", 0, 20))}, disk: without(disk(1, "A", 20), 7),
			want: Lost},
		{name: "all lost", consoles: []Console{on("alpha", boot("A", 0, 20))}, disk: disk(0), want: Lost},
		{name: "lost, found missing at the next boot, and covered up", want: Lost,
			consoles: []Console{on("alpha", boot("A", 0, 20)), on("beta", missing(boot("B", 20, 40), 7))},
			disk:     disk(21, "B", 40)},
		{name: "older data at the next boot", consoles: []Console{on("alpha", boot("A", 0, 20), boot("B", 10, 10))},
			disk: disk(1, "A", 20), want: Lost},
		{name: "overwritten by a boot from older data",
			consoles: []Console{on("alpha", boot("A", 0, 20)), on("beta", boot("B", 15, 40))},
			disk:     disk(1, "A", 15, "B", 40), want: TwoWriters},
		{name: "old writer goes on", consoles: []Console{on("alpha", boot("A", 0, 25)), on("beta", boot("B", 20, 40))},
			disk: disk(1, "A", 25, "B", 40), want: TwoWriters},
		{name: "both begin at the same record, which is overwritten by now", want: TwoWriters,
			consoles: []Console{on("alpha", boot("A", 20, 25)), on("beta", boot("B", 20, 22))}, disk: disk(100, "C", 200)},
		{name: "old writer goes on, which is overwritten by now", want: TwoWriters,
			consoles: []Console{on("alpha", boot("A", 0, 25)), on("beta", boot("B", 20, 40))}, disk: disk(100, "C", 200)},
		{name: "interleaved on the disk", disk: disk(1, "A", 20, "B", 30, "A", 31), want: TwoWriters},
		{name: "broken chain", disk: Disk{First: 1, Last: 2, Boots: map[uint64]string{1: "A", 2: "B"}, Breaks: []uint64{2}},
			want: TwoWriters},
		{name: "blackout loses what was not flushed", promise: Flushed,
			consoles: []Console{on("alpha", flushed(boot("A", 0, 20), 10), boot("B", 12, 15))}, disk: disk(1, "A", 12, "B", 15)},
		{name: "blackout loses what was flushed", promise: Flushed,
			consoles: []Console{on("alpha", flushed(boot("A", 0, 20), 10), boot("B", 9, 15))}, disk: disk(1, "A", 9, "B", 15),
			want: Lost},
		{name: "numbers go back", consoles: []Console{on("alpha", Boot{ID: "A", Scanned: true, Acks: []uint64{1, 3, 2}})},
			disk: disk(1, "A", 3), want: Order},
		{name: "no scan", consoles: []Console{on("alpha", Boot{ID: "A", Acks: []uint64{1}})}, disk: disk(1, "A", 1),
			want: Order},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := History(tt.consoles, tt.disk, tt.promise)
			if tt.want == "" && got != nil {
				t.Errorf("unexpected: %v", got)
			}
			if tt.want != "" && (len(got) == 0 || got[0].Rule != tt.want) {
				t.Errorf("want %q, got %v", tt.want, got)
			}
		})
	}
}

func TestLinearizable(t *testing.T) {
	w := func(block, value uint64, call, ret int64) Op {
		return Op{Block: block, Write: true, Value: value, Call: call, Return: ret}
	}
	r := func(block, value uint64, call, ret int64) Op {
		return Op{Client: 1, Block: block, Value: value, Call: call, Return: ret}
	}
	lost := func(op Op) Op { op.Unknown = true; return op }
	tests := []struct {
		name string
		ops  []Op
		want error
	}{
		{"nothing", nil, nil},
		{"fresh block", []Op{r(1, 0, 0, 1)}, nil},
		{"read what was written", []Op{w(1, 5, 0, 1), r(1, 5, 2, 3)}, nil},
		{"stale read", []Op{w(1, 5, 0, 1), w(1, 6, 2, 3), r(1, 5, 4, 5)}, ErrNotLinearizable},
		{"lost write", []Op{w(1, 5, 0, 1), r(1, 0, 2, 3)}, ErrNotLinearizable},
		{"value from nowhere", []Op{r(1, 9, 0, 1)}, ErrNotLinearizable},
		{"blocks are apart", []Op{w(1, 5, 0, 1), r(2, 0, 2, 3)}, nil},
		{"fault in the second block", []Op{w(1, 5, 0, 1), r(2, 5, 2, 3)}, ErrNotLinearizable},
		{"concurrent, old", []Op{w(1, 5, 0, 10), r(1, 0, 2, 3)}, nil},
		{"concurrent, new then old", []Op{w(1, 5, 0, 10), r(1, 5, 2, 3), r(1, 0, 4, 5)}, ErrNotLinearizable},
		{"unknown write that happened", []Op{lost(w(1, 5, 0, 1)), r(1, 0, 2, 3), r(1, 5, 4, 5)}, nil},
		{"unknown write that never happened", []Op{lost(w(1, 5, 0, 1)), r(1, 0, 2, 3), r(1, 0, 4, 5)}, nil},
		{"unknown write that came and went", []Op{lost(w(1, 5, 0, 1)), r(1, 5, 2, 3), r(1, 0, 4, 5)}, ErrNotLinearizable},
		{"unknown write before its call", []Op{r(1, 5, 0, 1), lost(w(1, 5, 2, 3))}, ErrNotLinearizable},
		{"unknown read", []Op{w(1, 5, 0, 1), lost(r(1, 0, 2, 3))}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if err := Linearizable(tt.ops, 10*time.Second); !errors.Is(err, tt.want) {
				t.Errorf("want %v, got %v", tt.want, err)
			}
		})
	}
}

// TestLinearizableOfARealRegister runs a register in memory: its histories must pass, and with one read spoiled fail.
func TestLinearizableOfARealRegister(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		var ops []Op
		state := map[uint64]uint64{}
		for i := int64(0); i < 60; i++ {
			// The operation takes effect at 10i; its interval reaches over its neighbours.
			op := Op{Client: int(i % 4), Block: rng.Uint64N(3), Write: rng.IntN(2) == 0, Call: 10*i - rng.Int64N(30),
				Return: 10*i + rng.Int64N(30)}
			op.Value = state[op.Block]
			if op.Write {
				op.Value = uint64(i) + 1
				state[op.Block] = op.Value
			}
			ops = append(ops, op)
		}
		if err := Linearizable(ops, 10*time.Second); err != nil {
			t.Fatal(err)
		}
		ops = append(ops, Op{Value: 1000, Call: 1, Return: 2})
		if err := Linearizable(ops, 10*time.Second); !errors.Is(err, ErrNotLinearizable) {
			t.Fatalf("a value that was never written: %v", err)
		}
	}
}
