package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"

	"duet/console/api"
	"duet/console/client"
	"duet/console/outcome"
)

const (
	orderTime = 30 * time.Minute // longest that an order is followed; it stands after that too
	orderLook = 5                // looks at the module within a tick
)

// module finds one in the status. api.ErrNotFound names what there is.
func (a *app) module(ctx context.Context, c *client.Client, name string) (api.ModuleStatus, error) {
	m, _, err := a.moduleAt(ctx, c, name)
	return m, err
}

// moduleAt is module, and the node that was asked.
func (a *app) moduleAt(ctx context.Context, c *client.Client, name string) (api.ModuleStatus, string, error) {
	st, err := brief(ctx, c.Status)
	if err != nil {
		return api.ModuleStatus{}, "", err
	}
	m, err := st.Module(name)
	return m, st.Self, err
}

// notHere is why a module that was to start, on no node by name, runs on another one than self, as status says it: a
// sentence to follow another one. Empty: it runs on self, or that is not known.
func (a *app) notHere(m api.ModuleStatus, self string) string {
	for _, n := range m.Nodes {
		if n.Came != nil && n.Heard() {
			if n.Node == self {
				return ""
			}
			return ". " + strings.TrimSuffix(a.cameText(m, n), ".")
		}
	}
	return ""
}

// followOrder waits until it is known what becomes of an order, and says so: by package outcome, which looks at the
// module's roles and at nothing that the order itself could tell, since the node that has the order may die over
// it. Ending it early leaves the order standing; then the error is interrupted, as after orderTime.
//
// It looks orderLook times in a tick: a role that lasts for less would be missed. A daemon that does not answer, as
// during its restart, is waited for; any other refusal ends the following, and the order may still be carried out.
// With --json nothing is written before the end. free: it is a start that names no node.
func (a *app) followOrder(ctx context.Context, c *client.Client, name string, o *outcome.Order, free bool) error {
	show, end := a.steps()
	defer end()
	began, heard := a.now(), a.now()
	for {
		m, self, err := a.moduleAt(ctx, c, name)
		switch {
		case ctx.Err() != nil: // the look was cut off: that says nothing of the daemon
		case err == nil:
			heard = a.now()
			look := o.At(m, heard)
			if look.Err != nil {
				return look.Err
			}
			if look.Done {
				// Not left to the defer: the outcome has a line of its own.
				end()
				if free {
					look.Said += a.notHere(m, self)
				}
				return a.say(api.ActionResult{Module: name, Said: look.Said}, "%s %s", clean(name), clean(look.Said))
			}
			show(look.Said)
		case !errors.Is(err, client.ErrAway) || a.now().Sub(heard) > patience: // what answers and refuses will do so again
			return fmt.Errorf("the order was given, what became of it is not known: %w", err)
		}
		select {
		case <-time.After(a.tick / orderLook):
		case <-ctx.Done():
		}
		if ctx.Err() != nil || a.now().Sub(began) > orderTime {
			return interrupted{fmt.Errorf("the order stands and goes on without you: `duet status %s` shows how far it is",
				name)}
		}
	}
}

// digitless drops digits, so that "ended in 12 s" and "ended in 11 s" are one text.
func digitless(r rune) rune {
	if unicode.IsDigit(r) {
		return -1
	}
	return r
}

// steps gives the function that shows what is waited for: in place on a terminal, else a line for each that is new
// and does not only count down, on standard error: what comes of the order is alone on standard output. end clears
// it away; it may be called more than once. One goroutine calls both.
func (a *app) steps() (show func(string), end func()) {
	switch {
	case a.json:
		return func(string) {}, func() {}
	case !a.outTTY:
		told := map[string]bool{}
		return func(text string) {
			if key := strings.Map(digitless, text); !told[key] {
				told[key] = true
				fmt.Fprintln(a.err, clean(text))
			}
		}, func() {}
	}
	open := false
	return func(text string) {
			open = true
			io.WriteString(a.out, "\r"+clip(clean(text), a.width()-1)+restOfLine)
		}, func() {
			if open {
				io.WriteString(a.out, "\r"+restOfLine)
			}
			open = false
		}
}
