// Package cpuidle keeps the CPUs of this computer out of idle states while replicated
// writes are under way.
//
// A synchronous write wakes four threads one after the other: daemon, peer, daemon,
// guest. On an otherwise idle computer waking a sleeping CPU takes longer than the
// work it wakes up for, so that a single writer waits mostly for CPUs. Linux lets a
// process ask for wake-ups without delay by holding /dev/cpu_dma_latency open; idle
// CPUs then poll, which costs power, so it is held only as long as writes come. Nothing depends on it but latency.
package cpuidle

import (
	"context"
	"io"
	"time"
)

const (
	// interval is how often the writes are counted.
	interval = 20 * time.Millisecond
	// worth is how many writes in an interval make it worth while: fewer are not a
	// writer that waits for each of them.
	worth = 8
	// linger is how many quiet intervals the CPUs are kept awake for.
	linger = 10
)

// Keep holds the CPUs awake, through hold, as long as writes grows, until ctx ends.
// writes is a running count of the writes that wait for a peer, on either side; it is
// called by the goroutine of Keep. An error of hold ends Keep: this computer does not
// offer it.
func Keep(ctx context.Context, writes func() uint64, hold func() (io.Closer, error)) error {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	var held io.Closer
	release := func() {
		if held != nil {
			_ = held.Close() // closing a request of the kernel's does not fail
			held = nil
		}
	}
	defer release()
	last, quiet := writes(), 0
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		now := writes()
		busy := now >= last+worth // it falls when a volume closes
		last = now
		switch {
		case busy && held == nil:
			var err error
			if held, err = hold(); err != nil {
				return err
			}
			quiet = 0
		case busy:
			quiet = 0
		case held != nil:
			if quiet++; quiet >= linger {
				release()
			}
		}
	}
}
