//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

func TestParseOptions(t *testing.T) {
	tests := []struct {
		line string
		want options
		bad  bool
	}{
		{line: "quiet panic=0", want: options{rate: 50, every: 10}},
		{line: "duet.mode=writer duet.rate=7 duet.flush=0\n", want: options{rate: 7}},
		{line: "duet.rate=0 duet.mode=idle", want: options{every: 10, idle: true}},
		{line: "duet.mode=poweroff-after=9", want: options{rate: 50, every: 10, then: "poweroff", count: 9}},
		{line: "duet.mode=panic-after=9", want: options{rate: 50, every: 10, then: "panic", count: 9}},
		{line: "duet.mode=panic-after", bad: true},
		{line: "duet.mode=writer=1", bad: true},
		{line: "duet.mode=dance", bad: true},
		{line: "duet.rate=-1", bad: true},
		{line: "duet.rate=x", bad: true},
		{line: "duet.flush=-1", bad: true},
	}
	for _, tt := range tests {
		got, err := parseOptions(tt.line)
		if (err != nil) != tt.bad || err == nil && got != tt.want {
			t.Errorf("%s: %+v, %v", tt.line, got, err)
		}
	}
}

func TestAnswer(t *testing.T) {
	tests := []struct {
		ask, want string
		stop      bool
	}{
		{ask: `{"execute":"guest-ping"}`, want: "{\"return\": {}}\n"},
		{ask: "\xff" + `{"execute":"guest-sync", "arguments":{"id":1699999999999}}`, want: "{\"return\": 1699999999999}\n"},
		{ask: `{"execute":"guest-sync-delimited","arguments":{"id":7}}`, want: "\xff{\"return\": 7}\n"},
		{ask: `{"execute":"guest-shutdown","arguments":{"mode":"powerdown"}}`, stop: true},
		{ask: `{"execute":"guest-\"x"}`,
			want: `{"error":{"class":"CommandNotFound","desc":"the test guest does not know guest-\"x"}}` + "\n"},
		{ask: "not json"},
		{ask: ""},
	}
	for _, tt := range tests {
		stop := make(chan os.Signal, 1)
		if got := string(answer([]byte(tt.ask+"\n"), stop)); got != tt.want {
			t.Errorf("%s: %q", tt.ask, got)
		}
		if (len(stop) == 1) != tt.stop || tt.stop && <-stop != unix.SIGTERM {
			t.Errorf("%s: stop is wrong", tt.ask)
		}
	}
}

// TestAskedToEndAgain: whoever asks again is not kept waiting, however full stop is.
func TestAskedToEndAgain(t *testing.T) {
	stop := make(chan os.Signal, 1)
	for range 2 {
		end(stop)
	}
	if len(stop) != 1 {
		t.Error("it is not asked to end")
	}
}

func FuzzAnswer(f *testing.F) {
	f.Add([]byte(`{"execute":"guest-ping"}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		if got := answer(line, make(chan os.Signal, 1)); got != nil &&
			(!json.Valid(bytes.TrimPrefix(got, []byte{0xff})) || bytes.IndexByte(got, '\n') != len(got)-1) {
			t.Errorf("%q is no line of JSON", got)
		}
	})
}
