package engine

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
)

// TestSilentWitnessIsToldOnce: a node that waits for its peer or a witness asks several times a second.
func TestSilentWitnessIsToldOnce(t *testing.T) {
	var log bytes.Buffer
	e := &Engine{cfg: Config{Logger: slog.New(slog.NewTextHandler(&log, nil))}}
	away := map[string]error{"w": errors.New("connection refused")}
	for _, asked := range []map[string]error{away, away, nil, away, {}, away} { // nil: the peer answered, nobody was asked
		e.noteSilent(asked)
	}
	if n := strings.Count(log.String(), "a witness does not vote"); n != 2 {
		t.Errorf("told %d times of two outages:\n%s", n, log.String())
	}
}
