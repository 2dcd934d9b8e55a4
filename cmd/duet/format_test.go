package main

import (
	"testing"
	"time"

	"duet/console/api"
)

func TestBytes(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0 B", 1: "1 B", 1023: "1023 B", 1024: "1 KiB", 1536: "1.5 KiB", 640 << 10: "640 KiB", 1<<20 - 1: "1 MiB",
		12345678: "11.8 MiB", 1 << 40: "1 TiB", 1<<63 - 1: "8 EiB", -2048: "-2 KiB", -1 << 63: "-8 EiB",
	} {
		if got := bytesText(n); got != want {
			t.Errorf("bytesText(%d) = %q, want %q", n, got, want)
		}
	}
}

func TestDuration(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second: "0s", 0: "0s", 840 * time.Microsecond: "840µs", 1520 * time.Microsecond: "1.5ms",
		999 * time.Millisecond: "999ms", time.Second: "1s",
		61 * time.Second: "1m1s", time.Hour: "1h", time.Hour + 5*time.Second: "1h", 130 * time.Minute: "2h10m",
		76 * time.Hour: "3d4h", 59*time.Second + 600*time.Millisecond: "1m",
	} {
		if got := durationText(d); got != want {
			t.Errorf("durationText(%v) = %q, want %q", d, got, want)
		}
	}
}

func TestProgress(t *testing.T) {
	for _, c := range []struct {
		s    api.Sync
		want string
	}{
		{api.Sync{Total: 100, Compared: 40, Rate: 1 << 20, ETA: 61}, "40% 1 MiB/s ETA 1m1s"},
		{api.Sync{Total: 1000, Compared: 999, ETA: 0.2}, "99% ETA 1s"},
		{api.Sync{Total: 0, Compared: 5, ETA: -1}, "0%"},
		{api.Sync{Total: 10, Compared: 20, ETA: 1e18}, "100%"},
		{api.Sync{Total: 1 << 62, Compared: 1 << 61, ETA: -1}, "50%"},
	} {
		if got := progressText(c.s); got != c.want {
			t.Errorf("progressText(%+v) = %q, want %q", c.s, got, c.want)
		}
	}
}

func TestTogether(t *testing.T) {
	a, b := &api.Sync{Kind: "resync", Total: 10, Compared: 5, Rate: 1, ETA: 5},
		&api.Sync{Kind: "resync", Total: 30, Compared: 5, Rate: 2, ETA: 9}
	if got := together(a, b); *got != (api.Sync{Kind: "resync", Total: 40, Compared: 10, Rate: 3, ETA: 9}) {
		t.Errorf("%+v", got)
	}
	b.ETA = -1
	if got := together(a, b); got.ETA != -1 || a.Total != 10 {
		t.Errorf("unknown ETA: %+v, %+v", got, a)
	}
	if together(nil, b) != b || together(a, nil) != a || together(nil, nil) != nil {
		t.Error("one of two")
	}
}

func TestBar(t *testing.T) {
	for pct, want := range map[int]string{-5: "[----]", 0: "[----]", 49: "[#---]", 50: "[##--]", 100: "[####]",
		300: "[####]"} {
		if got := barText(pct, 4); got != want {
			t.Errorf("barText(%d) = %q, want %q", pct, got, want)
		}
	}
}

func TestCleanAndClip(t *testing.T) {
	if got := clean("a\x1b[2Jb\nc\u202ed é"); got != "a?[2Jb c?d é" {
		t.Errorf("clean: %q", got)
	}
	for _, c := range []struct {
		s    string
		n    int
		want string
	}{{"éàü", 3, "éàü"}, {"éàüx", 3, "éà…"}, {"abc", 0, "abc"}, {"abc", 1, "…"}} {
		if got := clip(c.s, c.n); got != c.want {
			t.Errorf("clip(%q, %d) = %q, want %q", c.s, c.n, got, c.want)
		}
	}
	for _, c := range []struct {
		s    string
		n    int
		want string
	}{{"a kernel /b", 11, "a kernel /b"}, {"a kernel /boot/x is gone", 16, "a kernel …"},
		{"a /boot/x/y/z", 8, "a /boot…"}} {
		if got := clipWords(c.s, c.n); got != c.want {
			t.Errorf("clipWords(%q, %d) = %q, want %q", c.s, c.n, got, c.want)
		}
	}
}
