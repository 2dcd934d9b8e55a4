package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"duet/console/api"
	"duet/console/client"
)

// volumeCommand holds what is done with volumes. list has a row, or an object, for each volume on each node; what
// is Stale is what was last heard of it.
func (a *app) volumeCommand() *cobra.Command {
	c := &cobra.Command{Use: "volume", Short: "Show and compare replicated disks"}
	a.group(c)
	c.AddCommand(&cobra.Command{
		Use: "list [MODULE]", Short: "List the volumes on every node", Args: args("[MODULE]"),
		ValidArgsFunction: a.completeModules,
		RunE: a.call(func(ctx context.Context, c *client.Client, args []string) error {
			vols, err := volumesOf(ctx, c, args)
			if err != nil {
				return err
			}
			return a.emit(vols, func(w io.Writer) error { return a.writeVolumes(w, vols) })
		}),
	}, a.verifyCommand(), a.divergedCommand(), a.exportCommand(), a.dropCommand())
	return c
}

// volumesOf lists all volumes, or those of the module that is named. It never returns nil, which would be null in
// JSON.
func volumesOf(ctx context.Context, c *client.Client, args []string) ([]api.Volume, error) {
	if len(args) == 0 {
		return brief(ctx, c.Volumes)
	}
	m, err := brief(ctx, func(ctx context.Context) (api.ModuleStatus, error) { return c.Module(ctx, args[0]) })
	if err != nil {
		return nil, err
	}
	return append([]api.Volume{}, api.Status{Modules: []api.ModuleStatus{m}}.Volumes()...), nil
}

// verifyCommand begins a task on the node that is asked, which has to be the primary's; both copies have to be in
// step. Copies that differ, and were not made equal, are a failure of the task: exit 1, with the number of regions and
// the first place in the text. --repair takes the primary's copy for the right one.
func (a *app) verifyCommand() *cobra.Command {
	var repair, noWait bool
	c := &cobra.Command{
		Use: "verify MODULE/TARGET", Short: "Compare both copies of a volume while its VM runs",
		Long: "Compare both copies of a volume, as web01/vda, while its VM runs.\nWith --repair the secondary's copy is " +
			"made equal where it differs. Exit codes: 0 the copies are identical, or were made so; 1 they differ.",
		Args: args("MODULE/TARGET"), ValidArgsFunction: a.completeVolumes,
		RunE: a.call(func(ctx context.Context, c *client.Client, args []string) error {
			module, target, ok := strings.Cut(args[0], "/")
			if !ok || module == "" || target == "" {
				return usageError{fmt.Errorf("volume %q: say MODULE/TARGET, as web01/vda (duet volume list shows them)", args[0])}
			}
			t, err := c.Verify(ctx, module, target, repair)
			if err != nil {
				return err
			}
			return a.follow(ctx, c, t, noWait)
		}),
	}
	c.Flags().BoolVar(&repair, "repair", false, "make the secondary's copy equal where it differs")
	noWaitFlag(c, &noWait)
	return c
}

// writeVolumes writes one row per volume and node, the name in the first of its rows only.
func (a *app) writeVolumes(w io.Writer, vols []api.Volume) error {
	if len(vols) == 0 {
		_, err := fmt.Fprintln(w, "No volumes.")
		return err
	}
	t := table{head: []string{"VOLUME", "NODE", "STATE", "SIZE", "DIRTY", "SYNC", "LAG", "PROVEN EQUAL", "IMAGE"}}
	last := ""
	for _, v := range vols {
		name := cell{v.Name, bold}
		if v.Name == last {
			name.text = ""
		}
		last = v.Name
		state := cell{text: v.State}
		if v.Stale {
			state = cell{"? (was " + v.State + ")", dim}
		}
		lag, proven := "", ""
		if v.LagMicros > 0 {
			lag = durationText(time.Duration(v.LagMicros) * time.Microsecond)
		}
		if v.Proven != nil {
			proven = v.Proven.Local().Format("2006-01-02 15:04")
		}
		t.add(name, cell{text: v.Node}, state, cell{text: bytesText(v.Size)}, cell{text: bytesText(v.DirtyBytes)},
			cell{text: syncText(v.Sync)}, cell{text: lag}, cell{text: proven}, cell{text: v.Path})
	}
	return t.write(w, a.color())
}
