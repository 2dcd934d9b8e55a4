package ping

import (
	"context"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestGateways(t *testing.T) {
	table := "Iface Destination Gateway Flags\neth0 00000000 0101A8C0 0003\neth0 0001A8C0 00000000 0001\nbad\neth1 " +
		"00000000 zz 3\n"
	if got := parse(table); !slices.Equal(got, []string{"192.168.1.1"}) {
		t.Errorf("gateways are %v", got)
	}
}

// TestAny: this computer answers; where nothing does, the answer comes within the limit.
func TestAny(t *testing.T) {
	if !Any(t.Context(), []string{"192.0.2.1", "127.0.0.1"}) {
		t.Error("nobody answers, not even this computer")
	}
	if Any(t.Context(), []string{"no such name"}) {
		t.Error("what is no address answers")
	}
	got := Each(t.Context(), []string{"no such name", "127.0.0.1"})
	if want := []Target{{"no such name", false}, {"127.0.0.1", true}}; !slices.Equal(got, want) {
		t.Errorf("one by one: %v", got)
	}
}

// TestWatch: a target that was missed once is no news, twice it is; where nobody would go by it nobody asks.
func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var w Watch
		var asked, wanted atomic.Bool
		wanted.Store(true)
		ctx, cancel := context.WithCancel(t.Context())
		go w.Run(ctx, func() ([]string, bool) {
			asked.Store(true)
			return []string{"no such name"}, wanted.Load()
		})
		look := func(silent bool) {
			t.Helper()
			asked.Store(false)
			time.Sleep(watchEvery)
			if w.Silent() != silent || !asked.Load() {
				t.Errorf("silent %v, want %v", w.Silent(), silent)
			}
		}
		time.Sleep(watchEvery / 2) // between two looks of its own
		if w.Silent() {
			t.Error("one that was missed once is silent")
		}
		look(true)
		look(true)
		wanted.Store(false)
		look(false)
		cancel()
		synctest.Wait()
	})
}
