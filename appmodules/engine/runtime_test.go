package engine

import (
	"context"
	"errors"
	"testing"
)

// TestWaitKeepsItsOrder: of what is ready at the same time done counts before end, and both before ctx.
func TestWaitKeepsItsOrder(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	over := make(chan struct{})
	close(over)
	for range 200 { // a select that takes any of them would take each about as often
		token := make(chan struct{}, 1)
		token <- struct{}{}
		if err := (Real{}).Wait(ctx, token, over); err != nil || len(token) != 0 {
			t.Fatalf("done has a token: %v, and %d are left", err, len(token))
		}
		if err := (Real{}).Wait(ctx, token, over); !errors.Is(err, ErrStopped) {
			t.Fatalf("end is closed: %v", err)
		}
		if err := (Real{}).Wait(ctx, nil, nil); !errors.Is(err, context.Canceled) {
			t.Fatalf("ctx has ended: %v", err)
		}
	}
}
