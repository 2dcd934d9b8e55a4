package main

import (
	"bytes"
	"context"
	"strings"
	"testing"
)

func TestRun(t *testing.T) {
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"-n", "20", "-workers", "2"}, ok, "20 of 20 schedules"},
		{[]string{"-n", "x"}, unable, "usage"},
		{[]string{"-workers", "0"}, unable, "usage"},
		{[]string{"more"}, unable, "usage"},
	} {
		var out bytes.Buffer
		if code := run(t.Context(), c.args, &out, &out); code != c.code || !strings.Contains(out.String(), c.says) {
			t.Errorf("%v: status %d instead of %d, output %q", c.args, code, c.code, out.String())
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var out bytes.Buffer
	if code := run(ctx, []string{"-n", "20"}, &out, &out); code != unable {
		t.Errorf("interrupted: status %d, output %q", code, out.String())
	}
}
