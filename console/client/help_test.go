package client_test

import (
	"bytes"
	"errors"
	"net/http"
	"testing"

	"duet/console/api"
	"duet/console/api/apitest"
	"duet/console/client"
)

// TestHelp: what the doctor found and the zip come through whole, or with the reason why not.
func TestHelp(t *testing.T) {
	b := apitest.New()
	c := dial(t, api.Handler(b, "1.0", nil))
	if d, err := c.Doctor(t.Context()); err != nil || d.Node != "alpha" || len(d.Findings) != len(b.Sick.Findings) ||
		d.Findings[0] != b.Sick.Findings[0] {
		t.Errorf("%+v, %v", d, err)
	}
	var zip bytes.Buffer
	if err := c.Support(t.Context(), &zip); err != nil || !bytes.Equal(zip.Bytes(), b.Zip) {
		t.Errorf("%d bytes, %v", zip.Len(), err)
	}
	b.Fail = func(string) error { return api.ErrUnreach }
	if err := c.Support(t.Context(), &zip); !errors.Is(err, api.ErrUnreach) {
		t.Errorf("refused: %v", err)
	}
	cut := dial(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("PK"))
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}))
	if err := cut.Support(t.Context(), &zip); !errors.Is(err, client.ErrAway) {
		t.Errorf("cut off: %v", err)
	}
}
