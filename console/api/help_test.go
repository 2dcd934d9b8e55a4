package api_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http/httptest"
	"testing"

	"duet/console/api"
	"duet/console/api/apitest"
)

// broken is a Backend whose zip cannot be written to its end.
type broken struct{ *apitest.Backend }

func (broken) Support(context.Context) (func(io.Writer) error, error) {
	return func(w io.Writer) error {
		_, err := io.WriteString(w, "PK")
		return errors.Join(err, errors.New("disk full"))
	}, nil
}

// TestSupport: a zip comes whole, or the caller sees that it did not.
func TestSupport(t *testing.T) {
	b := apitest.New()
	res := send(t, api.Handler(b, "1.0", nil), "GET", "/v1/support", "", "")
	if got := text(t, res); got != string(b.Zip) || res.Header.Get("Content-Type") != api.SupportType ||
		res.Header.Get("Content-Disposition") == "" {
		t.Errorf("%d bytes as %v, want %d", len(got), res.Header, len(b.Zip))
	}
	b.Fail = func(string) error { return errors.New("no memory") }
	if res := send(t, api.Handler(b, "1.0", nil), "GET", "/v1/support", "", ""); res.StatusCode != 500 ||
		!bytes.Contains([]byte(text(t, res)), []byte("no memory")) {
		t.Errorf("status %d", res.StatusCode)
	}
	srv := httptest.NewServer(api.Handler(broken{apitest.New()}, "1.0", nil))
	defer srv.Close()
	cut, err := srv.Client().Get(srv.URL + "/v1/support")
	if err == nil {
		defer cut.Body.Close()
		_, err = io.ReadAll(cut.Body)
	}
	if err == nil {
		t.Error("half a zip looked like a whole one")
	}
}
