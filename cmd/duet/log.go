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

func (a *app) logCommand() *cobra.Command {
	var n int
	c := &cobra.Command{
		Use: "log MODULE", Short: "Show what happened to a module on all nodes, and why", Args: args("MODULE"),
		ValidArgsFunction: a.completeModules,
		RunE: a.call(func(ctx context.Context, c *client.Client, args []string) error {
			if n < 1 {
				return usageError{fmt.Errorf("-n %d: must be at least 1", n)}
			}
			entries, err := c.Log(ctx, args[0], n)
			if err != nil {
				return err
			}
			return a.emit(entries, func(w io.Writer) error { return a.writeLog(w, entries) })
		}),
	}
	c.Flags().IntVarP(&n, "lines", "n", 50, "how many of the newest transitions")
	return c
}

func (a *app) writeLog(w io.Writer, entries []api.LogEntry) error {
	t := table{head: []string{"TIME", "NODE", "FROM", "TO", "WHY"}}
	for _, e := range entries {
		t.add(cell{text: e.Time.Local().Format("2006-01-02 15:04:05.000")}, cell{text: e.Node}, cell{text: e.From},
			cell{e.To, logStyle(e.To)}, cell{text: e.Why})
	}
	return t.write(w, a.color())
}

func logStyle(to string) style {
	_, status, _ := strings.Cut(to, "/")
	return statusStyle(api.NodeState{Status: status})
}
