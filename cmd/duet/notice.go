package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"

	"duet/console/api"
	"duet/console/client"
)

// checkProtect says what would come of a protect, and changes nothing on either node. Exit 1 if it would be
// refused, with the reasons on standard output: they are what was asked for.
func (a *app) checkProtect(ctx context.Context, c *client.Client, vm string, r api.ProtectRequest) error {
	check, err := c.CheckProtect(ctx, vm, r)
	if err != nil {
		return err
	}
	err = a.emit(check, func(w io.Writer) error {
		verdict := "can be protected as module %s, with its second copy on %s"
		if !check.OK {
			verdict = "cannot be protected as module %s with its second copy on %s"
		}
		fmt.Fprintf(w, "VM %s "+verdict+".\n", clean(check.VM), clean(check.Module), clean(check.Peer))
		return a.writeNotices(w, "", check.Notices)
	})
	if err == nil && !check.OK {
		return exit(exitError) // why has been said
	}
	return err
}

// writeNotices writes what an admin should know, each with its remedy below it; node is
// where those were found that do not say it.
func (a *app) writeNotices(w io.Writer, node string, all []api.Notice) error {
	const width = len("refused") + 2
	for _, n := range all {
		at := or(n.Node, node)
		if at != "" {
			at += ": "
		}
		level := fmt.Sprintf("%-*s", width, n.Level)
		if _, err := fmt.Fprintf(w, "%s%s\n", paint(noticeStyle(n.Level), clean(level), a.color()),
			clean(at+n.Text)); err != nil {
			return err
		}
		if n.Remedy == "" {
			continue
		}
		if _, err := fmt.Fprintf(w, "%*s%s\n", width, "", clean(n.Remedy)); err != nil {
			return err
		}
	}
	return nil
}

// noticeStyle: red is what keeps data or a VM from being on both nodes. A level of a newer release is not coloured.
func noticeStyle(level string) style {
	switch level {
	case "alarm", "refused":
		return red
	case "warning":
		return orange
	}
	return plain
}

// noticed are the notices of a module that are more than good to know, the worst first, each with its node.
func noticed(m api.ModuleStatus) (out []api.Notice) {
	for _, n := range m.Nodes {
		for _, x := range n.Notices {
			if x.Level != "note" {
				x.Node = or(x.Node, n.Node)
				out = append(out, x)
			}
		}
	}
	worst := []string{"alarm", "refused"}
	rank := func(x api.Notice) uint { return uint(slices.Index(worst, x.Level)) } // what is not in it comes last
	slices.SortStableFunc(out, func(a, b api.Notice) int { return cmp.Compare(rank(a), rank(b)) })
	return out
}
