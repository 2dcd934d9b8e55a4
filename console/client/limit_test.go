package client

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"duet/console/api"
)

// slow answers as late as a node may.
type slow struct{}

func (slow) RoundTrip(r *http.Request) (*http.Response, error) {
	select {
	case <-time.After(api.WorkTime):
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
	w := httptest.NewRecorder()
	_, err := w.WriteString("{}")
	return w.Result(), err
}

// TestNodeAnswersFirst: what takes a node long is not given up before the node itself would: the admin read that duetd
// does not answer, while it was at work.
func TestNodeAnswersFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &Client{base: "http://duetd", where: "here", http: &http.Client{Transport: slow{}}}
		if _, err := c.CheckProtect(t.Context(), "web01", api.ProtectRequest{}); err != nil {
			t.Errorf("check: %v", err)
		}
		if err := c.Support(t.Context(), httptest.NewRecorder()); err != nil {
			t.Errorf("support: %v", err)
		}
	})
}
