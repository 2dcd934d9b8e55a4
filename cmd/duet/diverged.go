package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"duet/cluster/doctor"
	"duet/console/api"
	"duet/console/client"
)

// divergedCommand lists the kept versions of all nodes that answer; of one that does not there is a sentence, with
// --json on standard error, and no failure: what it keeps is not gone. [] and no failure where there are none. With
// MODULE each version is compared with its volume as it is now, by the node that keeps it, one after the other; that
// takes up to 20 s each and then tells what was found so far (Partly), and it fails where the volume is not open there.
// A module that is gone may have versions; one that never was is api.ErrNotFound.
func (a *app) divergedCommand() *cobra.Command {
	return &cobra.Command{
		Use: "diverged [MODULE]", Short: "List the versions of volumes that lost a split brain and are kept",
		Long: `List the versions of volumes that lost a split brain and are kept. Both nodes had
written without each other; one version goes on, the other is kept for a week on the
node that lost, beside its image: "duet volume export" writes it to a file, "duet volume
drop" forgets it.

With MODULE the versions of that module are compared with its volumes as they are now:
which bytes differ, and when each side wrote.`,
		Args: args("[MODULE]"), ValidArgsFunction: a.completeModules,
		RunE: a.call(func(ctx context.Context, c *client.Client, args []string) error {
			st, err := brief(ctx, c.Status)
			if err != nil {
				return err
			}
			all, err := c.Diverged(ctx)
			if err != nil {
				return err
			}
			away := unheard(st)
			if len(args) == 0 {
				if err := a.emit(all, func(w io.Writer) error { return a.writeVersions(w, all, len(away) > 0) }); err != nil {
					return err
				}
				a.complain(away)
				return nil
			}
			// A module that was released has its versions for their week.
			if _, err := st.Module(args[0]); err != nil &&
				!slices.ContainsFunc(all, func(v api.Version) bool { return v.Module == args[0] }) {
				return err
			}
			list := []api.Difference{}
			for _, v := range all {
				if v.Module != args[0] {
					continue
				}
				d, err := c.Difference(ctx, v.ID)
				if err != nil {
					return err
				}
				list = append(list, d)
			}
			if err := a.emit(list, func(w io.Writer) error { return a.writeDifferences(w, list, len(away) > 0) }); err != nil {
				return err
			}
			a.complain(away)
			return nil
		}),
	}
}

// unheard says of each node that is not up that its versions are not known.
func unheard(st api.Status) (out []api.Finding) {
	for _, n := range st.Nodes {
		if !n.Alive {
			out = append(out, api.Finding{Node: n.Name, Level: doctor.Problem, About: "versions",
				Fact: "it does not answer: versions that it keeps are not listed", Remedy: "look again when it is up"})
		}
	}
	return out
}

// writeVersions writes a row for each version: where it is kept, who won, when it was lost, how much of it was
// overwritten since and so lies beside the image, and what is wrong with it.
func (a *app) writeVersions(w io.Writer, list []api.Version, partly bool) error {
	if len(list) == 0 {
		return noVersion(w, partly)
	}
	t := table{head: []string{"VERSION", "VOLUME", "KEPT ON", "WON", "LOST AT", "SIZE", "OVERWRITTEN", "KEPT UNTIL",
		"PROBLEM"}}
	for _, v := range list {
		t.add(cell{v.ID, bold}, cell{text: v.Module + "/" + v.Target}, cell{text: v.Node}, cell{text: v.Winner.Node},
			cell{text: v.Begun.Local().Format("2006-01-02 15:04")}, cell{text: bytesText(v.Size)},
			cell{text: bytesText(v.Saved)},
			cell{text: v.Until.Local().Format("2006-01-02")}, cell{v.Problem, red})
	}
	return t.write(w, a.color())
}

// noVersion is what stands in place of an empty table; partly: a node does not answer.
func noVersion(w io.Writer, partly bool) error {
	text := "No version is kept: no split brain in the last week.\n"
	if partly {
		text = "No version is kept on the nodes that answer.\n"
	}
	_, err := io.WriteString(w, text)
	return err
}

// rangesShown is how many ranges people see of a difference; --json has all that the daemon found.
const rangesShown = 20

// writeDifferences writes each side's first and last write, how much differs, and the first places.
func (a *app) writeDifferences(w io.Writer, list []api.Difference, partly bool) error {
	if len(list) == 0 {
		return noVersion(w, partly)
	}
	var b strings.Builder
	for i, d := range list {
		if i > 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "%s/%s: version %s, kept on %s until %s\n", clean(d.Module), clean(d.Target), clean(d.ID),
			clean(d.Node), d.Until.Local().Format(time.DateOnly))
		fmt.Fprintf(&b, "  lost   %s\n  won    %s\n", sideText(d.Loser), sideText(d.Winner))
		atLeast := ""
		if d.Partly {
			atLeast = "at least " // the comparison took too long
		}
		fmt.Fprintf(&b, "  differs from the volume now in %s%s of %s\n", atLeast, bytesText(d.Bytes), bytesText(d.Size))
		for j, r := range d.Ranges {
			if j == rangesShown {
				fmt.Fprintf(&b, "    and %d more ranges: --json shows them\n", len(d.Ranges)-j)
				break
			}
			fmt.Fprintf(&b, "    %s at byte %d\n", bytesText(r.Length), r.Offset)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// sideText is when one side wrote without the other; times are those of that node's clock.
func sideText(s api.Side) string {
	at := func(t *time.Time) string {
		if t == nil {
			return "unknown"
		}
		return t.Local().Format(time.DateTime)
	}
	return fmt.Sprintf("%s: first write %s, last write %s", clean(s.Node), at(s.FirstWrite), at(s.LastWrite))
}

// exportCommand begins a task on the node that keeps the version, and has to be asked of that one: FILE is a path
// there. Only the daemon makes it, and overwrites nothing.
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

// dropCommand forgets a version for good, on whichever node keeps it, without a question: the ID was typed.
func (a *app) dropCommand() *cobra.Command {
	return &cobra.Command{
		Use: "drop VERSION", Short: "Forget a kept version", Args: args("VERSION"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: a.call(func(ctx context.Context, c *client.Client, args []string) error {
			if err := c.DropVersion(ctx, args[0]); err != nil {
				return err
			}
			return a.say(struct{}{}, "Version %s is forgotten.", clean(args[0]))
		}),
	}
}
