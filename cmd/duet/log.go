package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"duet/console/api"
	"duet/console/client"
)

// logCommand shows transitions: what changed, on which node, and why, which both nodes keep for people in journals
// that turn over. The daemon merges those of both nodes and leaves out a node that is away. Without a MODULE each
// module is asked for, one after the other. With --json an array, with -f a document for each line.
func (a *app) logCommand() *cobra.Command {
	var f logFlags
	var cmd *cobra.Command
	cmd = &cobra.Command{
		Use: "log [MODULE]", Short: "Show what happened to a module, or to all, on all nodes, and why",
		Args: args("[MODULE]"), ValidArgsFunction: a.completeModules,
		RunE: a.call(func(ctx context.Context, c *client.Client, args []string) error {
			since, err := f.check(a.now())
			if err != nil {
				return usageError{err}
			}
			if f.since != "" && !cmd.Flags().Changed("lines") { // all since then
				f.n = math.MaxInt32
			}
			l := &logReader{app: a, c: c, module: strings.Join(args, ""), n: f.n, since: since}
			if f.follow {
				return l.follow(ctx)
			}
			entries, err := l.read(ctx)
			if err != nil {
				return err
			}
			return a.emit(entries, func(w io.Writer) error { return a.writeLog(w, entries, l.module == "") })
		}),
	}
	cmd.Flags().IntVarP(&f.n, "lines", "n", logLines,
		"how many of the newest transitions; with --since all, unless it is said")
	cmd.Flags().StringVar(&f.since, "since", "",
		"only what is newer: a duration as 2h or 1d, or a time as 2006-01-02 15:04")
	cmd.Flags().BoolVarP(&f.follow, "follow", "f", false, "go on until ctrl-C: a line for each new transition")
	return cmd
}

// logLines is how many transitions are shown unless more are asked for.
const logLines = 50

// logFlags are as they were typed.
type logFlags struct {
	n      int
	since  string
	follow bool
}

// check reads the flags; the time is zero if there is no limit. A time without a zone is this computer's; the
// entries have the clocks of their nodes.
func (f logFlags) check(now time.Time) (time.Time, error) {
	if f.n < 1 {
		return time.Time{}, fmt.Errorf("-n %d: must be at least 1", f.n)
	}
	if f.since == "" {
		return time.Time{}, nil
	}
	if d, err := longDuration(f.since); err == nil && d > 0 {
		return now.Add(-d), nil
	}
	for _, layout := range []string{time.DateTime, "2006-01-02 15:04", time.DateOnly, time.RFC3339} {
		if t, err := time.ParseInLocation(layout, f.since, time.Local); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("--since %q: write a duration as 2h or 1d, or a time as 2006-01-02 15:04", f.since)
}

// longDuration is time.ParseDuration of a text that may begin with days, as 1d or 1d12h.
func longDuration(text string) (time.Duration, error) {
	days, rest, ok := strings.Cut(text, "d")
	if !ok {
		return time.ParseDuration(text)
	}
	n, err := strconv.ParseUint(days, 10, 16)
	if err != nil || rest == "" {
		return time.Duration(n) * day, err
	}
	d, err := time.ParseDuration(rest)
	return time.Duration(n)*day + d, err
}

const day = 24 * time.Hour

// logReader reads the transitions of a module, or of all. One goroutine uses it.
type logReader struct {
	*app
	c      *client.Client
	module string    // empty: all
	n      int       // how many in all; each module is asked for as many
	since  time.Time // zero: no limit
}

// read returns the newest n that are not older than since, oldest first: of different nodes in the order of their
// clocks. It never returns nil, which would be null in JSON.
func (l *logReader) read(ctx context.Context) ([]api.LogEntry, error) {
	modules := []string{l.module}
	if l.module == "" {
		st, err := brief(ctx, l.c.Status)
		if err != nil {
			return nil, err
		}
		modules = nil
		for _, m := range st.Modules {
			modules = append(modules, m.Name)
		}
	}
	all := []api.LogEntry{}
	for _, m := range modules {
		entries, err := brief(ctx, func(ctx context.Context) ([]api.LogEntry, error) { return l.c.Log(ctx, m, l.n) })
		if err != nil {
			return nil, err
		}
		all = append(all, entries...)
	}
	all = slices.DeleteFunc(all, func(e api.LogEntry) bool { return e.Time.Before(l.since) })
	slices.SortStableFunc(all, func(a, b api.LogEntry) int { return a.Time.Compare(b.Time) })
	return all[max(0, len(all)-l.n):], nil
}

// follow writes them as they come, until ctx ends, which is no error. A node that does not answer for the moment
// may do so again: that is told once, on standard error, and only the first reading has to succeed.
//
// It reads the newest n again in each tick and writes what it has not written yet: what a peer has to tell when it
// is back may be older than the line before. More than n transitions within a tick are not all seen.
func (l *logReader) follow(ctx context.Context) error {
	seen := map[string]bool{}
	first, away := true, false
	for {
		entries, err := l.read(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && first:
			return err
		case err != nil && !away:
			l.fail(statusOf(err), oneLine(err))
		}
		first, away = false, err != nil
		for _, e := range entries {
			key := fmt.Sprint(e.Time.UnixNano(), e.Node, e.Module, e.To)
			if seen[key] {
				continue
			}
			seen[key] = true
			if err := l.line(e); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(l.tick):
		}
	}
}

// line writes one transition, with --json as a document of its own on one line.
func (l *logReader) line(e api.LogEntry) error {
	if l.json {
		return json.NewEncoder(l.out).Encode(e)
	}
	_, err := fmt.Fprintf(l.out, "%s %s on %s: %s → %s: %s\n", e.Time.Local().Format("2006-01-02 15:04:05.000"),
		clean(e.Module), clean(e.Node), clean(e.From), paint(logStyle(e.To), clean(e.To), l.color()), clean(e.Why))
	return err
}

// writeLog writes them as a table, with the module where there may be several.
func (a *app) writeLog(w io.Writer, entries []api.LogEntry, modules bool) error {
	t := table{head: []string{"TIME", "NODE", "FROM", "TO", "WHY"}}
	if modules {
		t.head = slices.Insert(t.head, 1, "MODULE")
	}
	for _, e := range entries {
		cells := []cell{{text: e.Time.Local().Format("2006-01-02 15:04:05.000")}, {text: e.Node}, {text: e.From},
			{e.To, logStyle(e.To)}, {text: e.Why}}
		if modules {
			cells = slices.Insert(cells, 1, cell{e.Module, bold})
		}
		t.add(cells...)
	}
	return t.write(w, a.color())
}

// logStyle colours by the status that was reached; To is ROLE/Status.
func logStyle(to string) style {
	_, status, _ := strings.Cut(to, "/")
	return statusStyle(api.NodeState{Status: status})
}
