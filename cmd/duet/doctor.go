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

	"duet/cluster/doctor"
	"duet/cmd/duet/setup"
	"duet/console/api"
	"duet/console/client"
)

// glanceTime bounds the look that another command takes on its way. The whole look may take three times as long
// where nodes are silent; then nothing is told.
const glanceTime = 10 * time.Second

// doctorCommand asks the daemon to look at all nodes, and looks itself where that does not answer. --short leaves
// out lines, not problems: the exit code is the same. With --json it is an api.Doctor, and exit 1 with nothing on
// standard error is a problem in it.
func (a *app) doctorCommand() *cobra.Command {
	var dir string
	var short bool
	c := &cobra.Command{
		Use: "doctor", Short: "Look at all nodes: what is wrong and what to do",
		Long: `Look at all nodes that answer: hypervisor, who guests run as and what confines them,
ports in both directions on each heartbeat network, clocks, free space, memory if
everything ran on one node, watchdog, limits, versions, and who decides when nodes lose
each other. Nothing is changed. Where duetd does not run, this host alone is looked at,
as far as that goes without it.

Levels: ok; note, worth knowing; warning, works now and will not when something else
happens; problem, does not work. Each comes with what to do, the harmless first.
Exit codes: 0 no problem (there may be notes and warnings), 1 a problem, or no answer.`,
		Args: args(), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: a.call(func(ctx context.Context, c *client.Client, _ []string) error {
			err := a.answers(ctx, c)
			var d api.Doctor
			if err == nil {
				d, err = c.Doctor(ctx)
			}
			if a.alone(err) {
				d, err = a.lookAlone(ctx, dir, errors.Is(err, context.DeadlineExceeded)), nil
			}
			if err != nil {
				return err
			}
			shown := d
			if short {
				shown.Findings = slices.DeleteFunc(slices.Clone(d.Findings),
					func(f api.Finding) bool { return f.Level == doctor.OK || f.Level == doctor.Note })
			}
			if err := a.emit(shown, func(w io.Writer) error { return a.writeFindings(w, shown) }); err != nil {
				return err
			}
			// Of all findings, not of those that are shown.
			if len(problems(d.Findings)) > 0 {
				return exit(exitError)
			}
			return nil
		}),
	}
	c.Flags().BoolVarP(&short, "short", "s", false, "leave out what is in order")
	c.Flags().StringVar(&dir, "dir", setup.DefaultDir, "directory of the node's state, where duetd does not run")
	return c
}

// alone reports that the daemon of this computer does not answer: not at all, or not in time. One that is asked
// over TLS is another computer, of which nothing can be seen from here; one that refuses this user
// (client.ErrDenied) runs.
func (a *app) alone(err error) bool { return errors.Is(err, client.ErrAway) && a.here() }

// here reports that the daemon of this computer is asked: over TLS it may be any.
func (a *app) here() bool { return strings.HasPrefix(a.connect.Connect, "unix:") }

// lookAlone is a look at this computer without its daemon. It has the form of the daemon's, with that finding
// first. A host without the files of a node (no ports are known) is one before init or join: that is a note and no
// problem. A daemon that hangs (it took the connection and did not answer in time) has its ports itself: they say
// nothing of other programs.
func (a *app) lookAlone(ctx context.Context, dir string, hangs bool) api.Doctor {
	f := a.local.Look(ctx, dir)
	silent := api.Finding{Node: f.Node, Level: doctor.Problem, About: "duetd",
		Fact:   "duetd does not answer: this host is looked at without it",
		Remedy: "`systemctl enable --now duetd`; `journalctl -u duetd -n 20` says why it does not run"}
	switch {
	case hangs:
		silent.Fact = "duetd hangs here: it takes connections and does not answer; this host is looked at without it"
		silent.Remedy = "`journalctl -u duetd -n 50`, then `systemctl restart duetd`; if that hangs too, `dmesg`"
		f.Ports = nil
	case len(f.Ports) == 0:
		silent.Level, silent.Remedy = doctor.Note, "`duet cluster init` or `duet cluster join`, "+
			"then `systemctl enable --now duetd`"
	}
	return api.Doctor{Node: f.Node, Findings: append([]api.Finding{silent}, judged(f)...)}
}

// judged are the findings of one node's facts. What takes the facts of two nodes to see is not among them.
func judged(f doctor.Facts) []api.Finding {
	var out []api.Finding
	for _, x := range doctor.Judge(doctor.Look{Nodes: []doctor.Node{{Name: f.Node, Facts: &f}}}) {
		out = append(out, api.Finding(x))
	}
	return out
}

// problems are those that decide the exit code, in a list of its own.
func problems(all []api.Finding) []api.Finding {
	return slices.DeleteFunc(slices.Clone(all), func(f api.Finding) bool { return f.Level != doctor.Problem })
}

// writeFindings writes a table: below each fact what to do. The node stands in the first of its lines only; a
// finding of no node is of the cluster.
func (a *app) writeFindings(w io.Writer, d api.Doctor) error {
	if len(d.Findings) == 0 {
		_, err := fmt.Fprintln(w, "Nothing is wrong.")
		return err
	}
	t := table{head: []string{"NODE", "LEVEL", "FINDING"}, noteAt: 2}
	last := ""
	for i, f := range d.Findings {
		node := or(f.Node, "cluster")
		shown := node
		if i > 0 && node == last {
			shown = ""
		}
		last = node
		t.add(cell{shown, bold}, cell{f.Level, levelStyle(f.Level)}, cell{text: f.Fact})
		t.note(f.Remedy)
	}
	return t.write(w, a.color())
}

func levelStyle(level string) style {
	switch level {
	case doctor.Problem:
		return red
	case doctor.Warning:
		return orange
	case doctor.OK:
		return green
	}
	return plain
}

// complain names problems where another command does its work all the same: on standard error, and without a say in
// the exit code. With --json they are kept until the command has ended (run): standard error has one document.
func (a *app) complain(all []api.Finding) {
	if a.json {
		a.complaints = append(a.complaints, problems(all)...)
		return
	}
	for _, f := range problems(all) {
		fmt.Fprintf(a.err, "problem on %s: %s\n", clean(or(f.Node, "the cluster")), clean(f.Fact))
		if f.Remedy != "" {
			fmt.Fprintf(a.err, "  %s\n", clean(f.Remedy))
		}
	}
}

// glance complains about what a look at all nodes finds; without an answer it is silent, because the work that
// follows will say why. It comes before the work, so that an admin can still end that with ctrl-C.
func (a *app) glance(ctx context.Context, c *client.Client) {
	ctx, cancel := context.WithTimeout(ctx, glanceTime)
	defer cancel()
	if d, err := c.Doctor(ctx); err == nil {
		a.complain(d.Findings)
	}
}

// glanceHere is glance on this computer before its daemon runs.
func (a *app) glanceHere(ctx context.Context, dir string) {
	ctx, cancel := context.WithTimeout(ctx, glanceTime)
	defer cancel()
	a.complain(judged(a.local.Look(ctx, dir)))
}
