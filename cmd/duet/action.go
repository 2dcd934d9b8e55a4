package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"duet/console/api"
	"duet/console/client"
	"duet/console/outcome"
)

// actionCommands makes one command per action of a module. Each asks the same of the daemon, POST
// modules/MODULE/ACTION, which gives the order to the node that has to act and returns when that has accepted it;
// what comes of it only shows in the status. With --json standard output has one api.ActionResult, at the end.
func (a *app) actionCommands() []*cobra.Command {
	var out []*cobra.Command
	for _, x := range []struct {
		action            api.Action
		short, long, node string
	}{
		{api.Start, "Start a module", "Start a module on its nodes, or on --node. Who becomes primary is decided by the " +
			"data, not by who starts first.", "start it on this node only"},
		{api.Stop, "Stop a module", "Stop a module on its nodes, or on --node only: its peer then takes over. The guest is " +
			"asked to shut down, and is\nended if it has not within policy.shutdown.", "stop it on this node only"},
		{api.Restart, "Restart a module's VM where it runs", "Restart a module's VM on the node where it runs; no " +
			"failover. The guest is asked to shut down, and is ended if it\nhas not within policy.shutdown.",
			"the node on which it runs now; if it runs on another one nothing is done"},
		{api.Swap, "Exchange primary and secondary", "Exchange primary and secondary. No write is lost; both nodes must be " +
			"Ready. The guest is shut down here and started\nthere; it is ended if it has not shut down within " +
			"policy.shutdown.", "the node on which it runs now; if it runs on another one nothing is done"},
		{api.Prim, "Make a node primary where the rules do not", "Make a node primary although the rules do not. Where " +
			"its data may lack writes, or its peer is not heard and may be\nalive, both sides' facts are shown and a yes is " +
			"wanted.", "the node that is to be primary (default: the one that is asked)"},
		{api.Second, "Make a node secondary", "Make a node secondary: its data follow the primary's, as after a split " +
			"brain in which its version is the one to go.\nIf that gives up data a yes is wanted; they are kept aside for a " +
			"week.",
			"the node that is to be secondary (default: the one that is asked)"},
	} {
		var r api.ActionRequest
		var noWait bool
		c := &cobra.Command{
			Use: string(x.action) + " MODULE", Short: x.short,
			Long: x.long + "\n\nIt waits until the module has got there, and exits with 1 if it does not; --no-wait returns " +
				"at once.",
			Args: args("MODULE"), ValidArgsFunction: a.completeModules,
			RunE: a.call(func(ctx context.Context, c *client.Client, args []string) error {
				return a.act(ctx, c, args[0], x.action, r, noWait)
			}),
		}
		a.nodeFlag(c, &r.Node, x.node)
		c.Flags().BoolVar(&r.Yes, "yes", false, "do not ask, whatever the question would be")
		c.Flags().BoolVar(&noWait, "no-wait", false, "give the order and do not wait for what comes of it")
		out = append(out, c)
	}
	return out
}

// act gives one order and follows it. How the module stands is asked for before the order is given: what becomes of
// an order shows only beside how it stood before (outcome.New). Where that look fails nothing is ordered; --no-wait
// orders without it. After a question it is asked for again: much may have happened while it was open.
//
// What may give up data the daemon refuses with ErrConfirm; the text of that error are the facts, without which
// nobody can decide. Yes then confirms whatever the question would be by that time: the facts are not compared.
func (a *app) act(ctx context.Context, c *client.Client, module string, action api.Action, r api.ActionRequest,
	noWait bool) error {
	var order *outcome.Order // nil: it is not followed
	look := func() error {
		if noWait {
			return nil
		}
		m, err := a.module(ctx, c, module)
		if err == nil {
			order = outcome.New(m, action, r.Node)
		}
		return err
	}
	if err := look(); err != nil {
		return err
	}
	res, err := c.Act(ctx, module, action, r)
	if errors.Is(err, api.ErrConfirm) && !r.Yes {
		// The sentinel at the end of the text says nothing to people.
		facts := strings.TrimRight(strings.TrimSuffix(err.Error(), api.ErrConfirm.Error()), ": \n")
		wants := fmt.Errorf("%s of %s wants a confirmation: repeat with --yes to do it all the same", action, module)
		question := fmt.Sprintf("Do you want to %s all the same?", phrase(action, module))
		if err := a.confirm(ctx, facts, wants, question); err != nil {
			return err
		}
		if err := look(); err != nil {
			return err
		}
		r.Yes = true
		res, err = c.Act(ctx, module, action, r)
	}
	if err != nil {
		return err
	}
	if order == nil {
		return a.say(res, "%s %s", clean(module), clean(res.Said))
	}
	return a.followOrder(ctx, c, module, order, action == api.Start && r.Node == "")
}

// phrase is an action in the words of people.
func phrase(action api.Action, module string) string {
	switch action {
	case api.Prim:
		return "make " + module + " primary"
	case api.Second:
		return "make " + module + " secondary"
	}
	return string(action) + " " + module
}

// confirm shows the facts and asks for a yes in full. Where nobody can answer it returns wants; with --json the
// facts are part of that, so that standard error holds one document. nil is a yes; any other word, and the end of
// the input, is an error and nothing was changed. Whether somebody can answer is a matter of standard input alone.
// The end of ctx ends the question too, with its error: a deadline of ctx is how long the admin may think.
func (a *app) confirm(ctx context.Context, facts string, wants error, question string) error {
	if a.json {
		return unconfirmed{fmt.Errorf("%w: %s", wants, facts)}
	}
	fmt.Fprintln(a.err, cleanLines(facts))
	if !a.inTTY {
		return unconfirmed{wants}
	}
	fmt.Fprintf(a.err, "%s Type yes to go on: ", question)
	line := make(chan string, 1)
	go func() { // a read of a terminal cannot be called off: after ctrl-C it ends with the process
		s, _ := bufio.NewReader(a.in).ReadString('\n')
		line <- strings.TrimSpace(s)
	}()
	select {
	case s := <-line:
		if s != "yes" {
			return errors.New("not confirmed, nothing was changed")
		}
		return nil
	case <-ctx.Done():
		fmt.Fprintln(a.err)
		return ctx.Err()
	}
}

// cleanLines is clean for text that may have lines.
func cleanLines(s string) string {
	lines := strings.Split(s, "\n")
	for i := range lines {
		lines[i] = clean(lines[i])
	}
	return strings.Join(lines, "\n")
}
