package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"duet/console/api"
)

// TestHungDaemon: whoever only looks is told within a few seconds that the daemon hangs.
func TestHungDaemon(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // ends those that would wait for ever
	defer cancel()
	var checks []func()
	for line, want := range map[string]int{"status": exitError, "status db": exitError, "status -q": exitUnknown,
		"status db -q": exitUnknown, "status --watch": exitError, "log": exitError, "log db": exitError, "log -f": exitError,
		"vm list": exitError, "vm protect web --check": exitError, "volume list": exitError, "volume list db": exitError,
		"volume diverged": exitError, "config show db": exitError, "task t1": exitError, "cluster status": exitError,
		"cluster witness list": exitError, "cluster fence list": exitError, "cluster ping list": exitError,
		"metrics config": exitError, "doctor": exitError, "cluster leave": exitError, "swap db": exitError} {
		b := behind(t, func(_ http.ResponseWriter, r *http.Request) bool {
			<-r.Context().Done()
			return true
		})
		ended := make(chan int, 1)
		go func() { ended <- b.run(ctx, strings.Fields(line)) }()
		checks = append(checks, func() { // all of them wait at the same time
			code := <-ended
			if told := b.out.String() + b.err.String(); code != want || !strings.Contains(told, "does not answer") &&
				!strings.Contains(told, "duetd runs here") {
				t.Errorf("%s: %s", line, b.transcript(code))
			}
		})
	}
	for _, check := range checks {
		check()
	}
}

// TestNothingOrderedBlindly: where it is not known how a module stands nothing is ordered: what becomes of it would not
// be known either. --no-wait orders all the same.
func TestNothingOrderedBlindly(t *testing.T) {
	for _, line := range orders {
		b := newBench(t, false)
		b.node.Fail = func(call string) error {
			if call == "status" {
				return errors.New("the store is slow")
			}
			return nil
		}
		if code := b.run(t.Context(), strings.Fields(line)); code != exitError || b.given() != 0 {
			t.Errorf("%s, given %d times:\n%s", line, b.given(), b.transcript(code))
		}
		b.again()
		if code := b.run(t.Context(), strings.Fields(line+" --no-wait")); code != exitOK || b.given() != 1 {
			t.Errorf("%s --no-wait, given %d times:\n%s", line, b.given(), b.transcript(code))
		}
	}
}

// meanwhile is an admin with whose answer something happens.
type meanwhile struct {
	happens func()
	text    io.Reader
}

func (m meanwhile) Read(b []byte) (int, error) {
	m.happens()
	return m.text.Read(b)
}

// TestFailoverWhileAsked: a swap that is confirmed after the VM has moved by itself is of how it stands then: what has
// happened before the order is not taken for what was ordered.
func TestFailoverWhileAsked(t *testing.T) {
	b := behind(t, func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodPost {
			return false
		}
		var a api.ActionRequest
		_ = json.NewDecoder(r.Body).Decode(&a) // no yes
		if !a.Yes {
			return says(428, `{"title":"Precondition Required","status":428,"detail":"beta lacks a network"}`)(w, r)
		}
		return says(200, `{"module":"m","said":"moves"}`)(w, r)
	})
	b.node.Set(pair("PRIM/Ready running", "SECOND/Ready off"))
	b.inTTY = true
	b.in = meanwhile{func() { b.node.Set(pair("SECOND/Ready off", "PRIM/Ready running")) }, strings.NewReader("yes\n")}
	b.clock(time.Second)
	code := b.run(t.Context(), []string{"swap", "m"})
	if code != exitError || !strings.Contains(b.err.String(), "come to nothing") {
		t.Errorf("%s", b.transcript(code))
	}
}

// TestLogLines: how many transitions are wanted counts as it was said, also if it is the default.
func TestLogLines(t *testing.T) {
	for line, want := range map[string]string{"log db": "log db 50", "log db --since 2h -n 50": "log db 50",
		"log db --since 2h": "log db 10000"} {
		b := newBench(t, false)
		b.run(t.Context(), strings.Fields(line))
		if asked := b.node.Asked(); len(asked) != 1 || asked[0] != want {
			t.Errorf("%s: asked %q, want %q", line, asked, want)
		}
	}
}

// TestOneSecret: standard input has one secret; a second option that is to come from there is refused and not empty.
func TestOneSecret(t *testing.T) {
	b := newBench(t, false)
	b.in = strings.NewReader("secret\n")
	code := b.run(t.Context(), strings.Fields("cluster fence set beta --agent fence_x --option password=- "+
		"--option snmp=-"))
	if code != exitUsage || len(b.node.Asked()) > 0 || !strings.Contains(b.err.String(), "snmp") {
		t.Errorf("asked %q\n%s", b.node.Asked(), b.transcript(code))
	}
}

// torn is an output that takes nothing.
type torn struct{}

func (torn) Write([]byte) (int, error) { return 0, errors.New("broken pipe") }

// TestBrokenOutput: what could not be written is a failure.
func TestBrokenOutput(t *testing.T) {
	for _, line := range []string{"explain epoch", "volume diverged web01", "metrics config", "version"} {
		b := newBench(t, false)
		b.app.out = torn{}
		if code := b.run(t.Context(), strings.Fields(line)); code != exitError {
			t.Errorf("%s: exit %d", line, code)
		}
	}
}

// TestWitnessIsRemoved: a witness that is removed is, whoever can tell who votes now.
func TestWitnessIsRemoved(t *testing.T) {
	b := newBench(t, false)
	removed := false
	b.node.Fail = func(call string) error {
		if call == "status" && removed {
			return errors.New("the store is slow")
		}
		removed = removed || strings.HasPrefix(call, "remove witness")
		return nil
	}
	code := b.run(t.Context(), strings.Fields("cluster witness remove"))
	if code != exitOK || !strings.HasPrefix(b.out.String(), "The witness is removed; ") {
		t.Errorf("%s", b.transcript(code))
	}
}

// TestPlainErrors: errors have neither the words of Go's library nor lines of a text that nobody sees.
func TestPlainErrors(t *testing.T) {
	b := newBench(t, false)
	b.node.Fail = func(call string) error {
		if strings.HasPrefix(call, "apply") {
			return fmt.Errorf("%w: faulty configuration: config:13: policy.restart.max: a number is wanted, not \"x\"",
				api.ErrInvalid)
		}
		return nil
	}
	for line, want := range map[string]string{
		"log db -n x":             `duet: --lines "x": a whole number is wanted (duet log --help shows how)`,
		"cluster token --life 5":  `duet: --life "5": a duration such as 90s, 5m or 1h is wanted (duet cluster token --help shows how)`,
		"status --watch=perhaps":  `duet: --watch "perhaps": true or false is wanted (duet status --help shows how)`,
		"config check /nonexist":  "duet: /nonexist does not exist",
		"vm protect x --config /": "duet: read /: / is a directory",
		"config set db policy.restart.max=x": "duet: " + api.ErrInvalid.Error() +
			`: faulty configuration: policy.restart.max: a number is wanted, not "x"`,
	} {
		b.again()
		if b.run(t.Context(), strings.Fields(line)); b.err.String() != want+"\n" {
			t.Errorf("%s: %s", line, b.err.String())
		}
	}
}

// TestInterruptInEditor: ctrl-C is the editor's while that runs; what it makes of the text is applied.
func TestInterruptInEditor(t *testing.T) {
	dir := t.TempDir()
	begun, goOn := filepath.Join(dir, "begun"), filepath.Join(dir, "go")
	b := editors(t, "", "sh -c 'touch "+begun+"; while [ ! -e "+goOn+" ]; do sleep 0.01; done; sed -i s/3/7/ \"$0\"'")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan int, 1)
	go func() { ended <- b.run(ctx, strings.Fields("config edit db")) }()
	until(t, "the editor runs", func() bool { _, err := os.Stat(begun); return err == nil })
	cancel()
	if err := os.WriteFile(goOn, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if code := <-ended; code != exitOK || !strings.Contains(b.out.String(), "has configuration version 4") {
		t.Errorf("%s", b.transcript(code))
	}
}
