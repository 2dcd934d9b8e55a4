package fence

import (
	"bytes"
	"net/url"
	"strings"
	"testing"
)

func TestLastLine(t *testing.T) {
	o := Options{"ip": "10.0.9.1", "password": "p a&ss", "community": "p a&ss+more", "lanplus": "1", "ssl": "on"}
	for name, c := range map[string]struct{ text, want string }{
		"nothing": {"", ""},
		"blank":   {"\n \n\n", ""},
		"one":     {"Connection lost", "Connection lost"},
		"log":     {"2026-11-22 03:36:43,266 ERROR: Failed: Timed out\n\n\n", "Failed: Timed out"},
		"root":    {"x\nERROR:root:Connection lost\n", "Connection lost"},
		"usage": {"Failed: You have to set login name\n\n2026-11-22 03:36:43,399 ERROR: Please use '-h' for usage\n\n",
			"Failed: You have to set login name"},
		"secret":    {"unknown option 'pass=p a&ss'", "unknown option 'pass=***'"},
		"longer":    {"got p a&ss+more.", "got ***."},
		"escaped":   {"GET /?p=" + url.QueryEscape("p a&ss"), "GET /?p=***"},
		"hidden":    {"p \x00a&s\x1bs", "***"},
		"words":     {"10.0.9.1 is on, port 1", "10.0.9.1 is on, port 1"},
		"garbage":   {"\xff\xfe\x00ok\x1b[31m", "ok[31m"},
		"very long": {strings.Repeat("ä", 1000), strings.Repeat("ä", maxLine) + "…"},
	} {
		if got := lastLine([]byte(c.text), o); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

// TestTail: memory is bounded, the end is kept, and a line that lost its start is not shown.
func TestTail(t *testing.T) {
	for _, size := range []int{1, 7, 100, 1000, 5000} {
		w := &tail{max: 100}
		for range 10_000/size + 1 {
			if n, err := w.Write(bytes.Repeat([]byte("x"), size)); n != size || err != nil {
				t.Fatal(n, err)
			}
			if len(w.kept) > 200 {
				t.Fatalf("%d bytes kept", len(w.kept))
			}
		}
		if got := w.text(); len(got) != 0 {
			t.Errorf("size %d: half a line is shown: %q", size, got)
		}
		w.Write([]byte("\nthe end\n"))
		if got := string(w.text()); got != "the end\n" {
			t.Errorf("size %d: %q", size, got)
		}
	}
}

func FuzzLastLine(f *testing.F) {
	f.Add([]byte("2026-11-22 03:36:43,266 ERROR: login with hunter2\n"), "hunter2")
	f.Add([]byte("hun\x00ter2"), "hunter2")
	f.Fuzz(func(t *testing.T, text []byte, password string) {
		if faultyOption("password", password) != "" || len(password) < 2 || words.MatchString(password) ||
			strings.Contains(mask+"…", password) {
			t.Skip("not a password")
		}
		got := lastLine(text, Options{"password": password})
		if strings.Contains(strings.ReplaceAll(got, mask, "\n"), password) {
			t.Errorf("%q shows %q", got, password)
		}
		if n := len([]rune(got)); n > maxLine+1 || strings.ContainsAny(got, "\r\n\x1b\x00") {
			t.Errorf("%d runes: %q", n, got)
		}
	})
}
