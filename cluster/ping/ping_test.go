package ping

import (
	"slices"
	"testing"
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
