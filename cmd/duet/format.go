package main

import (
	"cmp"
	"fmt"
	"math"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"duet/console/api"
)

// bytesText writes a size in binary units with at most one decimal: "0 B", "640 KiB", "1.2 GiB".
func bytesText(n int64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}
	v, u := math.Abs(float64(n)), 0
	for u < len(units)-1 && v >= 1023.95 { // 1023.95 would be printed as 1024
		v, u = v/1024, u+1
	}
	sign := ""
	if n < 0 {
		sign = "-"
	}
	if u == 0 || v >= 99.95 {
		return fmt.Sprintf("%s%.0f %s", sign, v, units[u])
	}
	return sign + strings.TrimSuffix(fmt.Sprintf("%.1f", v), ".0") + " " + units[u]
}

// rateText writes bytes per second.
func rateText(n int64) string { return bytesText(n) + "/s" }

// durationText writes a duration in its two largest units: "840µs", "45s", "1m5s", "2h10m".
func durationText(d time.Duration) string {
	switch {
	case d < 0:
		return "0s"
	// Below a second it is a lag, of which the first digits tell something; above it nobody counts parts.
	case d < time.Millisecond:
		return d.Round(time.Microsecond).String()
	case d < time.Second:
		return d.Round(100 * time.Microsecond).String()
	}
	s := int64(d.Round(time.Second) / time.Second)
	units := []struct {
		name string
		secs int64
	}{{"d", 86400}, {"h", 3600}, {"m", 60}, {"s", 1}}
	for i, u := range units {
		if s < u.secs {
			continue
		}
		out := fmt.Sprint(s/u.secs, u.name)
		if rest := s % u.secs; i+1 < len(units) && rest >= units[i+1].secs {
			out += fmt.Sprint(rest/units[i+1].secs, units[i+1].name)
		}
		return strings.ReplaceAll(out, " ", "")
	}
	return "0s"
}

// ageText is durationText of how long ago something was, in whole seconds.
func ageText(d time.Duration) string { return durationText(d.Round(time.Second)) }

// percent is how far s is, 0 to 100, rounded down so that 100 means all.
func percent(s api.Sync) int {
	if s.Total <= 0 {
		return 0
	}
	done := float64(s.Compared) / float64(s.Total)
	return int(100 * min(1, max(0, done)))
}

// together is two syncs as one, which ends when the later of them does; of the kind of the first. Where one of them
// cannot say when it ends, both cannot. Either may be nil; neither is changed.
func together(a, b *api.Sync) *api.Sync {
	if a == nil || b == nil {
		return cmp.Or(a, b)
	}
	out := *a
	out.Total += b.Total
	out.Compared += b.Compared
	out.Differed += b.Differed
	out.Moved += b.Moved
	out.Rate += b.Rate
	// -1 is unknown, in either.
	if out.ETA = max(a.ETA, b.ETA); min(a.ETA, b.ETA) < 0 {
		out.ETA = -1
	}
	return &out
}

// syncText is a sync in one cell: "resync 40% 100 MiB/s ETA 1m1s".
func syncText(s *api.Sync) string {
	if s == nil {
		return ""
	}
	return s.Kind + " " + progressText(*s)
}

// progressText is how far a sync is, and its rate and time to go where they are known.
func progressText(s api.Sync) string {
	parts := []string{fmt.Sprintf("%d%%", percent(s))}
	if s.Rate > 0 {
		parts = append(parts, rateText(s.Rate))
	}
	if s.ETA >= 0 && s.ETA < 1e9 { // 30 years is no estimate
		parts = append(parts, "ETA "+durationText(time.Duration(math.Ceil(s.ETA))*time.Second))
	}
	return strings.Join(parts, " ")
}

// barText is a progress bar of that many cells, full at 100 % only.
func barText(pct, width int) string {
	full := min(width, max(0, pct*width/100))
	return "[" + strings.Repeat("#", full) + strings.Repeat("-", width-full) + "]"
}

// clean makes text of others safe to print: one line, no control characters, so that no name can move the cursor,
// hide what stands behind it, or begin a line that looks like ours. Rune for rune, so that widths can be counted
// after it.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case !unicode.IsPrint(r) && r != ' ':
			return '?'
		}
		return r
	}, s)
}

// clipWords is clip between words: half a path leads nowhere. A word that is longer than half of the width is cut.
func clipWords(s string, width int) string {
	short := clip(s, width)
	if i := strings.LastIndexByte(short, ' '); short != s && i >= width/2 {
		return short[:i] + " …"
	}
	return short
}

// clip shortens s to that many characters, the last of which is then an ellipsis; a width of 0 or less does not. It
// counts runes, not cells: wide ones may still wrap.
func clip(s string, width int) string {
	if width <= 0 || utf8.RuneCountInString(s) <= width {
		return s
	}
	return string([]rune(s)[:max(0, width-1)]) + "…"
}
