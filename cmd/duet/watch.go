package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"duet/console/api"
)

// Terminal codes: the other screen keeps what stood on this one.
const (
	otherScreen = "\x1b[?1049h\x1b[?25l" // xterm's alternate screen, without a cursor
	thisScreen  = "\x1b[?25h\x1b[?1049l"
	topLeft     = "\x1b[H"
	restOfLine  = "\x1b[K"
	restOfPage  = "\x1b[J"
)

// watch shows what look sees until ctx ends, which is no error (exit 0). A node that stops answering is shown too:
// this is when an admin looks. Only the first look has to succeed, so that a wrong name or a daemon that never was
// there ends at once. It polls, once in a tick: the API has no stream, and a look asks nobody but this one daemon.
//
// On a terminal the page is redrawn on the terminal's other screen, and the last one is left behind; elsewhere
// there is a line for each change, and with --json a document for each. A second ctrl-C leaves the other screen on:
// the process is gone then.
func (a *app) watch(ctx context.Context, look func(context.Context) (api.Status, error), detail bool) error {
	var show func(st api.Status, err error) error
	switch {
	case a.json:
		show = a.showJSON()
	case a.outTTY:
		// An error of the terminal shows in the first page.
		io.WriteString(a.out, otherScreen)
		last := &bytes.Buffer{}
		defer func() { // leave the last view behind
			io.WriteString(a.out, thisScreen)
			last.WriteTo(a.out)
		}()
		show = a.showPage(last, detail)
	default:
		show = a.showChanges()
	}
	first := true
	for {
		st, err := look(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		// Nothing was shown yet that could be of use beside the error.
		case err != nil && first:
			return err
		}
		first = false
		if err := show(st, err); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(a.tick):
		}
	}
}

// showPage redraws the whole page in place, and puts it into last too. While there is no answer the last one stays,
// with the time it is of: an admin must not take it for the present.
func (a *app) showPage(last *bytes.Buffer, detail bool) func(api.Status, error) error {
	var old api.Status
	var answered time.Time
	return func(st api.Status, err error) error {
		last.Reset()
		if err != nil {
			fmt.Fprintf(last, "%s\n%s\n\n", paint(red, oneLine(err), a.color()),
				"Last answer at "+answered.Local().Format("15:04:05")+":")
		} else {
			old, answered = st, a.now()
		}
		if err := a.writeStatus(last, old, detail); err != nil {
			return err
		}
		// Each line is cleared behind its text, and the page below it: nothing flickers as after a clear.
		page := topLeft + strings.ReplaceAll(last.String(), "\n", restOfLine+"\r\n") + restOfPage
		_, werr := io.WriteString(a.out, page)
		return werr
	}
}

// showJSON writes one JSON document per line, whenever it differs from the last by any byte: figures that move
// (dirty bytes, a resync) make a line in each tick.
func (a *app) showJSON() func(api.Status, error) error {
	var old []byte
	return func(st api.Status, err error) error {
		if err != nil {
			return nil // there is no type of the API for it; the next answer tells what was missed
		}
		b, err := json.Marshal(st)
		if err != nil || bytes.Equal(b, old) {
			return err
		}
		old = b
		_, err = fmt.Fprintf(a.out, "%s\n", b)
		return err
	}
}

// showChanges writes one line per change, with the time of this computer. The first look is told as if nothing had
// been known. That there is no answer is told once for each reason, and once that there is one again; what changed
// in between follows.
func (a *app) showChanges() func(api.Status, error) error {
	var old api.Status
	failed := ""
	return func(st api.Status, err error) error {
		var lines []string
		if err != nil {
			if text := oneLine(err); text != failed {
				failed, lines = text, []string{text}
			}
		} else {
			if failed != "" {
				lines = append(lines, "duetd answers again")
			}
			failed, lines = "", append(lines, changes(old, st)...)
			old = st
		}
		for _, l := range lines {
			if _, err := fmt.Fprintf(a.out, "%s %s\n", a.now().Local().Format("15:04:05"), clean(l)); err != nil {
				return err
			}
		}
		return nil
	}
}

// changes tells in sentences what is new in now: a node that comes or goes, by its heartbeats; a module's role,
// status, VM or reason; notices. Figures (epochs, bytes, progress) make no line. A module that is not in now any
// more is gone; a node that is not is not told.
func changes(old, now api.Status) []string {
	var out []string
	was := map[string]string{}
	for _, n := range old.Nodes {
		was["node "+n.Name] = nodeText(old, n)
	}
	told := map[string]api.NodeState{}
	for _, m := range old.Modules {
		for _, n := range m.Nodes {
			told[m.Name+" "+n.Node] = n
		}
	}
	for _, n := range now.Nodes {
		if key := "node " + n.Name; was[key] != nodeText(now, n) {
			out = append(out, key+": "+arrow(was[key], nodeText(now, n)))
		}
	}
	for _, m := range now.Modules {
		for _, n := range m.Nodes {
			key := m.Name + " " + n.Node
			before, known := told[key]
			delete(told, key)
			out = append(out, newNotices(module(m, n), before.Notices, n.Notices)...)
			if known && stateText(before) == stateText(n) && before.Why == n.Why {
				continue
			}
			state := stateText(n)
			if known {
				state = arrow(stateText(before), state)
			}
			out = append(out, module(m, n)+": "+state+": "+n.Why)
		}
	}
	for _, m := range old.Modules { // in the order they were shown
		for _, n := range m.Nodes {
			if _, gone := told[m.Name+" "+n.Node]; gone {
				out = append(out, module(m, n)+": gone")
			}
		}
	}
	return out
}

// newNotices tells which notices came and which are no longer there. They are compared as a whole: one whose text
// changes goes and comes.
func newNotices(where string, old, now []api.Notice) []string {
	var out []string
	for _, n := range now {
		if !slices.Contains(old, n) {
			out = append(out, where+": "+n.Level+": "+n.Text)
		}
	}
	for _, n := range old {
		if !slices.Contains(now, n) {
			out = append(out, where+": no longer: "+n.Text)
		}
	}
	return out
}

func module(m api.ModuleStatus, n api.NodeState) string { return m.Name + " on " + n.Node }

func arrow(from, to string) string {
	if from == "" || from == to {
		return to
	}
	return from + " → " + to
}

// stateText is what of a node's state counts as a change.
func stateText(n api.NodeState) string {
	if !n.Heard() {
		if was := wasText(n); was != "" {
			return "? (" + was + ")"
		}
		return "?"
	}
	out := n.Role + "/" + n.Status
	if n.VM != "" {
		out += " vm " + n.VM
	}
	return out
}

// nodeText is the same of a node of st: whether it is up, and which of its paths are heard.
func nodeText(st api.Status, n api.NodeStatus) string {
	state := "down"
	switch {
	case unknown(st, n):
		return notKnown
	case n.Leaving:
		state = "leaving"
	case n.Quiet && n.Alive:
		state = "overdue"
	case n.Alive:
		state = "up"
	}
	if len(n.Paths) == 0 {
		return state
	}
	return state + " (" + pathsText(n.Paths) + ")"
}
