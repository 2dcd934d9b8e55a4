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
	orderTime = 30 * time.Minute // longest that an order is followed
	orderLook = 5                // looks at the module within a tick
)

// module finds one in the status.
func (a *app) module(ctx context.Context, c *client.Client, name string) (api.ModuleStatus, error) {
	st, err := c.Status(ctx)
	if err != nil {
		return api.ModuleStatus{}, err
	}
	return st.Module(name)
}

// followOrder waits until it is known what becomes of an order, and says so. Ending it early leaves the order
// standing.
func (a *app) followOrder(ctx context.Context, c *client.Client, name string, o *outcome.Order) error {
	show, end := a.steps()
	defer end()
	began, heard := a.now(), a.now()
	for {
		m, err := a.module(ctx, c, name)
		switch {
		case ctx.Err() != nil:
		case err == nil:
			heard = a.now()
			look := o.At(m, heard)
			if look.Err != nil {
				return look.Err
			}
			if look.Done {
				end()
				return a.say(api.ActionResult{Module: name, Said: look.Said}, "%s %s", clean(name), clean(look.Said))
			}
			show(look.Said)
		case !errors.Is(err, client.ErrAway) || a.now().Sub(heard) > patience:
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

// digitless drops digits.
func digitless(r rune) rune {
	if unicode.IsDigit(r) {
		return -1
	}
	return r
}

// steps gives the function that shows what is waited for: in place on a terminal, else a line for each that is new
// and does not only count down. end clears it away.
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
