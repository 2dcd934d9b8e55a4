package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"duet/console/api"
	"duet/console/client"
)

// pingCommand changes what init's --ping said. It counts at once on all nodes that answer; those that do not learn it
// when they are back, which is told and no failure.
func (a *app) pingCommand() *cobra.Command {
	c := &cobra.Command{Use: "ping", Short: "Say which addresses tell a dead peer from a dead network",
		Long: `Say which addresses a node pings that has lost its peer, where there is neither witness
nor fence device and a module has arbitration "available": if one answers, it goes on.
Without any the default gateway of each node is asked.`}
	a.group(c)
	set := func(ctx context.Context, c *client.Client, targets []string) error {
		st, err := c.SetPing(ctx, targets)
		if err != nil {
			return err
		}
		later := ""
		if len(st.Unaware) > 0 {
			later = fmt.Sprintf("\nNot known yet on %s: a node learns it when it answers and is of a release that knows this "+
				"command.", clean(strings.Join(st.Unaware, ", ")))
		}
		return a.say(st, "%s%s", asked(st), later)
	}
	c.AddCommand(&cobra.Command{
		Use: "list", Short: "List the ping targets", Args: args(),
		RunE: a.call(func(ctx context.Context, c *client.Client, _ []string) error {
			st, err := brief(ctx, c.PingTargets)
			if err != nil {
				return err
			}
			return a.emit(st, func(w io.Writer) error {
				_, err := fmt.Fprintln(w, asked(st))
				return err
			})
		}),
	}, &cobra.Command{
		Use: "set IP[,IP2]", Short: "Exchange the ping targets", Args: args("IP[,IP2]"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: a.call(func(ctx context.Context, c *client.Client, args []string) error {
			return set(ctx, c, strings.Split(args[0], ","))
		}),
	}, &cobra.Command{
		Use: "remove", Short: "Do without ping targets: the default gateway is asked", Args: args(),
		RunE: a.call(func(ctx context.Context, c *client.Client, _ []string) error { return set(ctx, c, nil) }),
	})
	return c
}

// asked says what is.
func asked(st api.PingTargets) string {
	who := "its default gateway"
	if len(st.Targets) > 0 {
		who = clean(strings.Join(st.Targets, ", "))
	}
	return "Where neither a witness nor a fence device decides, each node asks " + who + "."
}
