package sim

import (
	"strings"
	"testing"
)

func TestFirst(t *testing.T) {
	out, err := parse(strings.TrimSpace(`
set arbitration available
start
wait 2s
power-cut alpha
expect beta ALONE/Ready within 5s
power-on alpha
settle within 20s
command beta swap
wait 1s
settle within 20s
`)).run(1, true)
	t.Log("\n" + out)
	if err != nil {
		t.Fatal(err)
	}
}
