package main

import (
	"context"
	"io"

	"github.com/spf13/cobra"

	"duet/console/api"
	"duet/console/client"
)

func (a *app) divergedCommand() *cobra.Command {
	return &cobra.Command{
		Use: "diverged [MODULE]", Short: "List the versions of volumes that lost a split brain and are kept",
		Long: `List the versions of volumes that lost a split brain and are kept. Both nodes had
written without each other; one version goes on, the other is kept for a week on the
node that lost, beside its image: "duet volume export" writes it to a file, "duet volume
drop" forgets it.`,
		Args: args("[MODULE]"), ValidArgsFunction: a.completeModules,
		RunE: a.call(func(ctx context.Context, c *client.Client, args []string) error {
			all, err := c.Diverged(ctx)
			if err != nil {
				return err
			}
			list := []api.Version{}
			for _, v := range all {
				if len(args) == 0 || v.Module == args[0] {
					list = append(list, v)
				}
			}
			return a.emit(list, func(w io.Writer) error { return a.writeVersions(w, list) })
		}),
	}
}

func (a *app) writeVersions(w io.Writer, list []api.Version) error {
	if len(list) == 0 {
		_, err := io.WriteString(w, "No version is kept: no split brain in the last week.\n")
		return err
	}
	t := table{head: []string{"VERSION", "VOLUME", "KEPT ON", "WON", "LOST AT", "SIZE", "OVERWRITTEN", "KEPT UNTIL", "PROBLEM"}}
	for _, v := range list {
		t.add(cell{v.ID, bold}, cell{text: v.Module + "/" + v.Target}, cell{text: v.Node}, cell{text: v.Winner},
			cell{text: v.Begun.Local().Format("2006-01-02 15:04")}, cell{text: bytesText(v.Size)}, cell{text: bytesText(v.Saved)},
			cell{text: v.Until.Local().Format("2006-01-02")}, cell{v.Problem, red})
	}
	return t.write(w, a.color())
}

func (a *app) exportCommand() *cobra.Command {
	var noWait bool
	c := &cobra.Command{
		Use: "export VERSION FILE", Short: "Write a kept version to a new raw image",
		Long: "Write a kept version to a new raw image, on the node that keeps it. FILE is a whole path and must not exist.",
		Args: args("VERSION", "FILE"),
		RunE: a.call(func(ctx context.Context, c *client.Client, args []string) error {
			t, err := c.ExportVersion(ctx, args[0], args[1])
			if err != nil {
				return err
			}
			return a.follow(ctx, c, t, noWait)
		}),
	}
	noWaitFlag(c, &noWait)
	return c
}

func (a *app) dropCommand() *cobra.Command {
	return &cobra.Command{
		Use: "drop VERSION", Short: "Forget a kept version", Args: args("VERSION"), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: a.call(func(ctx context.Context, c *client.Client, args []string) error {
			if err := c.DropVersion(ctx, args[0]); err != nil {
				return err
			}
			return a.say(struct{}{}, "Version %s is forgotten.", clean(args[0]))
		}),
	}
}
