package control

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// TestWorkOutlivesItsCaller: who calls gives up, and what was begun for it goes on, within bounds.
func TestWorkOutlivesItsCaller(t *testing.T) {
	begun, gone, goOn := make(chan struct{}), make(chan struct{}), make(chan struct{})
	ended := make(chan error, 1)
	p := New(Config{Logger: slog.New(slog.DiscardHandler)})
	work := Handle(p, func(ctx context.Context, _ any) (struct{}, error) {
		if until, bounded := ctx.Deadline(); !bounded || time.Until(until) > workTime {
			t.Errorf("it may take until %v", until)
		}
		close(begun)
		<-goOn
		ended <- ctx.Err()
		return struct{}{}, nil
	})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		context.AfterFunc(r.Context(), func() { close(gone) })
		work.ServeHTTP(w, r)
	}))
	defer srv.Close()
	ctx, giveUp := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, srv.URL, strings.NewReader("null"))
	if err != nil {
		t.Fatal(err)
	}
	left := make(chan struct{})
	go func() {
		defer close(left)
		if resp, err := srv.Client().Do(req); err == nil {
			_ = resp.Body.Close()
			t.Error("an answer although nobody waits for one")
		}
	}()
	<-begun
	giveUp()
	<-left
	<-gone
	close(goOn)
	if err := <-ended; err != nil {
		t.Errorf("the work was called off with its caller: %v", err)
	}
}
