package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"duet/console/api"
	"duet/console/client"
)

const (
	barCells = 24               // of a progress bar
	lineGap  = 2 * time.Second  // between lines of progress that are not drawn in place
	patience = 30 * time.Second // with a node that does not answer while it works, as during its restart
)

// taskCommand takes up the following of a task that another call began, or lists those that the node knows. An ID is
// known to the node that does the work, for an hour after its end (console/tasks); another node says that there is no
// such task. It exits as the call that began it would have: 1 if the task failed. With --no-wait it tells how far it is
// and exits with 0, whatever that is.
func (a *app) taskCommand() *cobra.Command {
	var noWait bool
	c := &cobra.Command{
		Use: "task [ID]", Short: "Follow long work that goes on, or list the works of the node that is asked",
		Long: "Follow long work that goes on, or list the works of the node that is asked, with those that ended within " +
			"the last hour:\nwhat came of these was so then, and \"duet status\" says how it is now. The work of a protect " +
			"ends when the VM is on\nits volumes: the copy to the other node goes on after it, and \"duet status\" shows how " +
			"far that is.",
		Args: args("[ID]"), ValidArgsFunction: a.completeTasks,
		RunE: a.call(func(ctx context.Context, c *client.Client, args []string) error {
			if len(args) == 0 {
				return a.taskList(ctx, c)
			}
			t, err := taskOf(ctx, c, args[0])
			if err != nil {
				return err
			}
			if noWait {
				return a.say(t, "%s", progressLine(t))
			}
			if t.Done && t.Error == "" { // nobody has followed it to its end: what came of it may be old
				return a.say(t, "%s%s", endedAt(t), outcomeOf(t))
			}
			return a.follow(ctx, c, t, false)
		}),
	}
	c.Flags().BoolVar(&noWait, "no-wait", false, "only say how far it is")
	return c
}

// taskList lists the tasks of the node that is asked and says how one is followed.
func (a *app) taskList(ctx context.Context, c *client.Client) error {
	all, err := brief(ctx, c.Tasks)
	if err != nil {
		return err
	}
	return a.emit(all, func(w io.Writer) error {
		if len(all) == 0 {
			_, err := fmt.Fprintf(w, "No long work goes on on this node, and none has ended in the last hour.%s\n",
				a.copiesGoOn(ctx, c, "\n"))
			return err
		}
		t := table{head: []string{"TASK", "WORK", "MODULE", "SINCE", "HOW FAR"}}
		for _, x := range all {
			far := cell{text: progressLine(x)}
			switch {
			case x.Error != "":
				far.style = red
			case x.Done:
				far.style = green
			}
			t.add(cell{x.ID, bold}, cell{text: x.Kind}, cell{text: x.Module},
				cell{text: x.Began.Local().Format("2006-01-02 15:04:05")}, far)
		}
		if err := t.write(w, a.color()); err != nil {
			return err
		}
		_, err := fmt.Fprintf(w, "\n`duet task %s` follows the last one.%s\n", clean(all[len(all)-1].ID),
			a.copiesGoOn(ctx, c, " "))
		return err
	})
}

// copiesGoOn names, behind a space, the modules whose second copy is being made or catches up: that is no task, and
// goes on after the protect that began it. What is not known is not told.
func (a *app) copiesGoOn(ctx context.Context, c *client.Client, space string) string {
	st, err := brief(ctx, c.Status)
	if err != nil {
		return ""
	}
	var names []string
	for _, v := range st.Volumes() {
		if v.Sync != nil && v.Sync.Kind == "resync" && !v.Stale && !slices.Contains(names, v.Module) {
			names = append(names, v.Module)
		}
	}
	if len(names) == 0 {
		return ""
	}
	return fmt.Sprintf("%sThe second copy of %s goes on: `duet status` shows how far it is.", space,
		clean(strings.Join(names, ", ")))
}

// goingOn says in one line what a task does, how far it is and how it is followed.
func goingOn(t api.Task) string {
	return fmt.Sprintf("Going on: %s %s, %s (`duet task %s` follows it).", clean(t.Kind), clean(t.Module), progressLine(t),
		clean(t.ID))
}

// taskOf is how far a task is.
func taskOf(ctx context.Context, c *client.Client, id string) (api.Task, error) {
	return brief(ctx, func(ctx context.Context) (api.Task, error) { return c.Task(ctx, id) })
}

// noWaitFlag is for commands that begin a task: the ID alone on standard output, so that a script can keep it, and what
// to do with it on standard error.
func noWaitFlag(c *cobra.Command, noWait *bool) {
	c.Flags().BoolVar(noWait, "no-wait", false, "do not follow the work; print its id for \"duet task ID\"")
}

// follow shows t until it is done. Ending it early leaves the work going on: the error is interrupted. A task that
// failed is exit 1 with the task's reason; with --json the task is on standard output in either case.
//
// The task is asked for once in a tick. While the daemon does not answer, as during its restart, it is waited for:
// protect and release are plans, which the next run takes up under the same ID. Other works end with the daemon,
// and the ID is unknown to its next run: that ends the following at once.
func (a *app) follow(ctx context.Context, c *client.Client, t api.Task, noWait bool) error {
	if noWait {
		if !a.json {
			fmt.Fprintf(a.err, "%s of %s has begun: `duet task %s` follows it\n", clean(t.Kind), clean(t.Module), clean(t.ID))
		}
		return a.say(t, "%s", clean(t.ID))
	}
	show := a.progress()
	heard := a.now()
	for !t.Done {
		show(t)
		select {
		case <-ctx.Done():
			show(api.Task{Done: true})
			return interrupted{fmt.Errorf("%s of %s goes on without you: duet task %s follows it again", t.Kind, t.Module, t.ID)}
		case <-time.After(a.tick):
		}
		next, err := taskOf(ctx, c, t.ID)
		switch {
		case err == nil:
			t, heard = next, a.now()
		case ctx.Err() != nil: // told in the next round
		case !errors.Is(err, client.ErrAway) || a.now().Sub(heard) > patience:
			show(api.Task{Done: true})
			return fmt.Errorf("follow %s of %s (task %s): %w", t.Kind, t.Module, t.ID, err)
		default:
			t.Step, t.Sync = "the node does not answer, waiting for it", nil
		}
	}
	show(t)
	if t.Error != "" {
		if a.json {
			// Whoever reads JSON gets the whole task, whatever came of it; the error is told beside it.
			if err := a.emit(t, nil); err != nil {
				return err
			}
		}
		return fmt.Errorf("%s of %s: %s", t.Kind, t.Module, t.Error)
	}
	return a.say(t, "%s", outcomeOf(t))
}

// progress gives the function that shows how far a task is: in place on a terminal, else as lines, one per step and
// per lineGap, on standard output like the result. A finished task only ends the line. One goroutine calls it.
func (a *app) progress() func(api.Task) {
	switch {
	case a.json:
		return func(api.Task) {}
	case a.outTTY:
		return a.progressBar()
	}
	step, last := "", time.Time{}
	return func(t api.Task) {
		now := a.now()
		// A new step is told at once, progress within it seldom: a log of hours must not fill a disk.
		if t.Done || t.Step == step && now.Sub(last) < lineGap {
			return
		}
		step, last = t.Step, now
		fmt.Fprintf(a.out, "%s %s\n", now.Local().Format("15:04:05"), progressLine(t))
	}
}

// progressBar draws the line of a step over and over, and leaves the last state of each step on the screen. A step
// that is wider than the terminal is cut off: a line that wraps could not be drawn over.
func (a *app) progressBar() func(api.Task) {
	step, open := "", false
	return func(t api.Task) {
		if open && (t.Done || t.Step != step) {
			io.WriteString(a.out, "\n") // what is past stays to be read
			open = false
		}
		if t.Done {
			return
		}
		line := clean(t.Step)
		if t.Sync != nil {
			line += " " + barText(percent(*t.Sync), barCells) + " " + progressText(*t.Sync)
		}
		step, open = t.Step, true
		io.WriteString(a.out, "\r"+clip(line, a.width()-1)+restOfLine)
	}
}

// endedAt is before what came of a task, which was so then; it is within the last hour.
func endedAt(t api.Task) string {
	if t.Ended == nil {
		return ""
	}
	return "ended " + t.Ended.Local().Format("15:04") + ": "
}

// outcomeOf is what came of a task that went well.
func outcomeOf(t api.Task) string { return clean(or(t.Result, t.Kind+" of "+t.Module+" is done")) }

// progressLine is a task as one line, also one that has ended.
func progressLine(t api.Task) string {
	line := clean(t.Step)
	switch {
	case t.Done && t.Error != "":
		line = endedAt(t) + "failed: " + clean(t.Error)
	case t.Done:
		line = endedAt(t) + clean(or(t.Result, "done"))
	case t.Sync != nil:
		line += fmt.Sprintf(" %s (%s of %s)", progressText(*t.Sync), bytesText(t.Sync.Compared), bytesText(t.Sync.Total))
	}
	return line
}
