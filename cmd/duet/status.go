package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"duet/console/api"
	"duet/console/client"
)

// The exit codes of "status" that are not those of roles. Scripts and monitors know them: they do not change. They
// are apart from exitError and exitUsage, which say that the question was not answered.
const (
	exitUnknown  = 5  // the role cannot be told
	exitDegraded = 10 // everything runs, but not on two copies, or something is wrong, or nobody decides for it
	exitDown     = 11 // something that is to run does not
)

// roleExit gives the exit code of "status MODULE -q". Scripts of people who come from another HA product know these
// numbers; they do not change, although WAIT is also exitError and ALONE is also exitUsage.
func roleExit(role string) exit {
	switch role {
	case "STOP":
		return 0
	case "WAIT":
		return 1
	case "ALONE", "UP":
		return 2
	case "PRIM":
		return 3
	case "SECOND":
		return 4
	}
	return exitUnknown
}

// levelExit gives the exit code of status for the level of the cluster or of a module. What is not known here is
// worse than it looks, never better.
func levelExit(l api.Level) error {
	switch l {
	case api.OK, "": // a daemon that is older than levels
		return nil
	case api.Degraded:
		return exit(exitDegraded)
	}
	return exit(exitDown) // a level of a newer version is not taken for good
}

// statusFlags: node "" is all nodes, and for the role of a module (quiet) the one that is asked.
type statusFlags struct {
	node         string
	watch, quiet bool
}

// statusCommand asks the daemon for its view, which it gives without asking its peer: a node that is away costs no
// time, and what was last heard of it is marked Stale. Once it prints and exits by level (levelExit); with -q it
// prints nothing on standard output, and only an error on standard error; with -w it goes on and exits with 0 at
// ctrl-C.
func (a *app) statusCommand() *cobra.Command {
	var f statusFlags
	c := &cobra.Command{
		Use: "status [MODULE]", Short: "Show the nodes and modules of the cluster",
		Long: `Show the nodes and modules of the cluster, or one module with its volumes. The first
line says how the cluster stands, and the exit code does: 0 ok, 10 degraded (everything
runs, but not on two copies, or something is wrong, or nobody decides for it when the
hosts lose each other), 11 down (something does not run that was not stopped).

With MODULE and -q nothing is printed but an error, on standard error, and the exit code
is its role on the node that is asked, or on --node: STOP 0, WAIT 1, ALONE or UP 2, PRIM 3,
SECOND 4, and 5 if it cannot be told (no answer, no such module). With -q alone it is how the cluster stands, or 5.
Without -q no answer is 1. A duetd that hangs is told within a few seconds.`,
		Args: args("[MODULE]"), ValidArgsFunction: a.completeModules,
		RunE: a.call(func(ctx context.Context, c *client.Client, args []string) error {
			module := ""
			if len(args) > 0 {
				module = args[0]
			}
			return a.status(ctx, c, module, f)
		}),
	}
	c.Flags().BoolVarP(&f.watch, "watch", "w", false,
		"go on until ctrl-C: in place on a terminal, else a line for each change")
	c.Flags().BoolVarP(&f.quiet, "quiet", "q", false,
		"print nothing but errors; the exit code is the role of MODULE, or how the cluster stands")
	a.nodeFlag(c, &f.node, "only this node")
	return c
}

// status is the command behind its flags. --json gives an api.Status, or with a module its api.ModuleStatus; with
// -w it gives an api.Status in either case, with that one module in it.
func (a *app) status(ctx context.Context, c *client.Client, module string, f statusFlags) error {
	if f.quiet && f.watch {
		return usageError{errors.New("-q and --watch: one of them")}
	}
	look := func(ctx context.Context) (api.Status, error) {
		st, err := brief(ctx, c.Status)
		if err != nil {
			return st, err
		}
		if !a.json && module != "" { // before it is narrowed: the states of all nodes make the verdict
			st.Verdict = a.ofModule(st, module)
		}
		return narrow(st, module, f.node)
	}
	if f.watch {
		return a.watch(ctx, look, module != "")
	}
	st, err := look(ctx)
	switch {
	case f.quiet && module != "":
		return a.role(st, f.node, err)
	case f.quiet && err != nil:
		a.fail(statusOf(err), oneLine(err))
		return exit(exitUnknown)
	case err != nil:
		return err
	case f.quiet:
		return levelExit(st.Verdict.Level)
	case module == "":
		err = a.emit(st, func(w io.Writer) error { return a.writeStatus(w, st, false) })
		// Also of what could not be printed: the exit code is what monitors read.
		return errors.Join(err, levelExit(st.Verdict.Level))
	}
	err = a.emit(st.Modules[0], func(w io.Writer) error { return a.writeStatus(w, st, true) })
	return errors.Join(err, levelExit(st.Modules[0].Level))
}

// role turns the state of the one module in st into an exit code. err is why there is none: it is told, and the
// code is exitUnknown, which a node that does not answer has too, silently: what was last heard of it is no answer.
func (a *app) role(st api.Status, node string, err error) error {
	if err == nil {
		var n api.NodeState
		if n, err = st.Modules[0].On(or(node, st.Self)); err == nil && n.Heard() {
			return roleExit(n.Role)
		}
	}
	if err != nil {
		a.fail(statusOf(err), oneLine(err))
	}
	return exit(exitUnknown)
}

// ofModule is the verdict of st if it had that one module only, of its nodes, and empty where there is nothing to say:
// the module is well, or there is none of that name, or this node was removed, which the module's state says.
func (a *app) ofModule(st api.Status, module string) api.Verdict {
	m, err := st.Module(module)
	if err != nil || m.Level == api.OK || m.Level == "" || st.Removed != "" {
		return api.Verdict{}
	}
	elsewhere := func(n api.NodeStatus) bool { _, err := m.On(n.Name); return err != nil && n.Name != st.Self }
	st.Nodes, st.Witnesses = slices.DeleteFunc(slices.Clone(st.Nodes), elsewhere), nil
	st.Modules = []api.ModuleStatus{m}
	v := st.Judged(a.now()).Verdict
	v.Level = m.Level // as the exit code: a newer daemon may know better
	return v
}

// narrow keeps one module and one node of st; empty names keep all. The verdict stays that of the whole cluster.
// One that is not there is api.ErrNotFound, with what there is. st's own lists are not changed: others may have
// them.
func narrow(st api.Status, module, node string) (api.Status, error) {
	if module != "" {
		m, err := st.Module(module)
		if becoming, yes := notYet(st, module); err != nil && yes {
			m, err = becoming, nil
		}
		if err != nil {
			return st, err
		}
		st.Modules, st.Tasks = []api.ModuleStatus{m}, nil
	}
	if node == "" {
		return st, nil
	}
	i := slices.IndexFunc(st.Nodes, func(n api.NodeStatus) bool { return n.Name == node })
	if i < 0 {
		return st, fmt.Errorf("node %s: %w%s", node, api.ErrNotFound, api.Known(node, nodeNames(st)))
	}
	if node != st.Self { // tasks are those of the node that answers
		st.Tasks = nil
	}
	// A module that is not on that node is left out of a list; asked for by its name it is an error.
	st.Nodes = st.Nodes[i : i+1]
	var kept []api.ModuleStatus
	for _, m := range st.Modules {
		n, err := m.On(node)
		if err != nil {
			if module != "" {
				return st, err
			}
			continue
		}
		m.Nodes = []api.NodeState{n}
		kept = append(kept, m)
	}
	st.Modules = kept
	return st, nil
}

// notYet is a module that is being made: its data are on one node and no node has a state of it.
func notYet(st api.Status, module string) (api.ModuleStatus, bool) {
	i := slices.IndexFunc(st.Tasks, func(t api.Task) bool { return t.Module == module && t.Joins() })
	if i < 0 {
		return api.ModuleStatus{}, false
	}
	kind := map[string]string{"protect": "vm", "install": "mirror"}[st.Tasks[i].Kind]
	return api.ModuleStatus{Name: module, Kind: kind, Level: api.Degraded, Nodes: []api.NodeState{}, Task: &st.Tasks[i]},
		true
}

// nodeNames are those of the members, in the order of the configuration: for flags, completion and errors.
func nodeNames(st api.Status) []string {
	var out []string
	for _, n := range st.Nodes {
		out = append(out, n.Name)
	}
	return out
}

// writeStatus writes the whole view, or one module in detail, which st has alone then, with its verdict. Its text is
// for people; the columns may change.
func (a *app) writeStatus(w io.Writer, st api.Status, detail bool) error {
	if detail {
		if a.writeVerdict(w, st.Verdict); st.Verdict.Level != "" {
			fmt.Fprintln(w)
		}
		return a.writeModule(w, st.Modules[0])
	}
	if err := a.writeNodes(w, st); err != nil {
		return err
	}
	if len(st.Modules) == 0 && len(st.Tasks) == 0 {
		_, err := fmt.Fprint(w, "\nNo modules yet: duet vm protect VM puts a virtual machine under protection.\n")
		return err
	}
	if len(st.Modules) > 0 {
		if err := a.writeModules(w, st); err != nil {
			return err
		}
	}
	if len(st.Tasks) > 0 {
		fmt.Fprintln(w)
	}
	for _, t := range st.Tasks {
		fmt.Fprintln(w, strings.Join(wrap(goingOn(t), a.width()), "\n"))
	}
	return nil
}

// hint is how much is said of a notice where only that it is there is to be known, in characters.
const hint = 160

// writeModules writes a table of all modules, and which of them have something to mend.
func (a *app) writeModules(w io.Writer, st api.Status) error {
	fmt.Fprintln(w)
	t := a.moduleTable()
	for _, m := range st.Modules {
		addModule(&t, m, false)
	}
	if err := t.write(w, a.color()); err != nil {
		return err
	}
	for _, m := range st.Modules {
		if all := noticed(m); len(all) > 0 {
			text := fmt.Sprintf("Module %s has something to mend (%d): on %s: %s; duet status %s shows more.", m.Name, len(all),
				all[0].Node, clipWords(all[0].Text, hint), m.Name)
			fmt.Fprintf(w, "\n%s\n", strings.Join(wrap(clean(text), a.width()), "\n"))
		}
	}
	return nil
}

// writeNodes writes how the cluster stands, whose view that is, and a line for each node and witness. A view of one
// node may differ from that of its peer; so its name is in the head.
func (a *app) writeNodes(w io.Writer, st api.Status) error {
	a.writeVerdict(w, st.Verdict)
	fmt.Fprintf(w, "Cluster %s, as %s sees it (duetd %s)\n\n", clean(st.Cluster), clean(st.Self), clean(st.Version))
	t := table{head: []string{"NODE", "STATE", "HEARTBEAT"}}
	for _, n := range st.Nodes {
		// By the heartbeats of this node; a node itself is always up in its own view.
		state := cell{"up", green}
		switch {
		case unknown(st, n):
			state, n.Paths = cell{notKnown, dim}, nil
		case n.Leaving:
			state = cell{"leaving", orange}
		case !n.Alive:
			state = cell{"down", red}
			if n.Silent != nil {
				state.text += " for " + ageText(a.now().Sub(*n.Silent))
			}
		case n.Quiet:
			state = cell{"overdue", orange}
		}
		paths := cell{text: pathsText(n.Paths)}
		if n.Name == st.Self {
			paths = cell{"this node", dim}
		} else if strings.Contains(paths.text, "silent") {
			paths.style = orange
		}
		t.add(cell{text: n.Name}, state, paths)
	}
	for _, wit := range st.Witnesses {
		t.add(cell{text: "witness " + clean(wit.Addr)}, a.witnessState(wit), cell{text: clean(wit.Why)})
	}
	if err := t.write(w, a.color()); err != nil {
		return err
	}
	for _, n := range st.Gone {
		fmt.Fprintf(w, "\n%s\n", strings.Join(wrap(a.goneText(n), a.width()), "\n"))
	}
	return nil
}

// notKnown is the state of a node of which nothing is known.
const notKnown = "not known"

// unknown: the node that tells st was removed, and the other ones do not talk to it any more: they may be up.
func unknown(st api.Status, n api.NodeStatus) bool { return st.Removed != "" && n.Name != st.Self }

// goneText says that a node was removed, when, and how it comes back. Its commands are those of the refusals there.
func (a *app) goneText(n api.GoneNode) string {
	when, name := "", clean(n.Name)
	if n.At != nil {
		when = fmt.Sprintf(" at %s (%s ago)", n.At.Local().Format("2006-01-02 15:04:05"), ageText(a.now().Sub(*n.At)))
	}
	return fmt.Sprintf("%s was removed%s: `duet cluster token` here and `duet cluster rejoin` there bring it back; a new "+
		"computer joins with --node %s.", name, when, name)
}

// writeVerdict writes how the cluster stands; a node of an older release does not say it.
func (a *app) writeVerdict(w io.Writer, v api.Verdict) {
	if v.Level == "" {
		return
	}
	color := map[api.Level]style{api.OK: green, api.Degraded: orange, api.Down: red}[v.Level]
	level := strings.ToUpper(string(v.Level))
	lines := wrap(level+": "+clean(v.Text), a.width())
	lines[0] = paint(color, level, a.color()) + strings.TrimPrefix(lines[0], level)
	fmt.Fprintln(w, strings.Join(lines, "\n"))
}

// pathsText lists heartbeat networks by name: "hb1 ok, hb2 silent".
func pathsText(paths map[string]bool) string {
	var out []string
	for name, ok := range paths {
		if ok {
			out = append(out, name+" ok")
		} else {
			out = append(out, name+" silent")
		}
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}

// moduleTable has a row for each node of a module; DATA says whether that copy has all that was acknowledged, and
// DIRTY how much of it may differ from the peer's.
func (a *app) moduleTable() table {
	return table{head: []string{"MODULE", "NODE", "ROLE", "STATUS", "VM", "EPOCH", "DATA", "DIRTY", "SYNC"}, noteAt: 1,
		width: a.width()}
}

// addModule adds one row per node, with the sentence why where it is not Ready or always. The node that answers
// stands first; of one that does not only its former role is said, in dim letters: nothing else of it is known now.
func addModule(t *table, m api.ModuleStatus, always bool) {
	name := m.Name
	// The newest epoch that any node is known to know.
	var newest uint64
	for _, n := range m.Nodes {
		newest = max(newest, n.Epoch)
	}
	for _, n := range liveFirst(m.Nodes) {
		if !n.Heard() { // what was true when it was last heard is no news
			t.add(cell{name, bold}, cell{text: n.Node}, cell{"?", dim}, cell{wasText(n), dim})
			name = ""
			continue
		}
		var dirty int64
		var sync *api.Sync
		for _, v := range n.Volumes {
			dirty += v.DirtyBytes
			// All disks of a module in one cell.
			sync = together(sync, v.Sync)
		}
		color := statusStyle(n)
		data := cell{"complete", plain}
		switch {
		case !n.Complete:
			data = cell{"incomplete", orange}
		case n.Epoch < newest: // complete when it was last heard of
			data = cell{"outdated", orange}
		}
		t.add(cell{name, bold}, cell{text: n.Node}, cell{n.Role, color}, cell{n.Status, color}, cell{text: n.VM},
			cell{text: fmt.Sprint(n.Epoch)}, data, cell{text: bytesText(dirty)}, cell{text: syncText(sync)})
		if always || n.Status != "Ready" {
			t.note(n.Why)
		}
		name = ""
	}
}

// wasText is what a node that does not answer was when it was last heard; empty: nothing is known of that.
func wasText(n api.NodeState) string {
	if n.Role == "UNKNOWN" {
		return ""
	}
	return "was " + n.Role
}

// liveFirst puts the nodes that answer before those that do not.
func liveFirst(all []api.NodeState) []api.NodeState {
	out := slices.Clone(all)
	slices.SortStableFunc(out, func(a, b api.NodeState) int {
		switch {
		case a.Heard() == b.Heard():
			return 0
		case b.Heard():
			return 1
		}
		return -1
	})
	return out
}

// statusStyle is the colour of a role and its status: what runs on one copy is no cause for alarm and not in order
// either. A status of a newer release is red.
func statusStyle(n api.NodeState) style {
	switch {
	case n.Status == "Ready" && n.Role == "ALONE":
		return orange // it runs, on one copy
	case n.Status == "Ready":
		return green
	case n.Status == "Transient":
		return orange
	}
	return red
}

// cameText says why a module is where it is, which is not why it is as it is: that may have changed since.
func (a *app) cameText(m api.ModuleStatus, n api.NodeState) string {
	when := ""
	if n.Came.At != nil {
		when = fmt.Sprintf(" since %s (%s)", n.Came.At.Local().Format("2006-01-02 15:04:05"),
			ageText(a.now().Sub(*n.Came.At)))
	}
	return fmt.Sprintf("%s is on %s%s: %s.", clean(m.Name), clean(n.Node), when, clean(n.Came.Why))
}

// sinceText is a line of how long a node has been as it is, and whose the right to write is, as far as that is known;
// of a node that was never heard of nothing is.
func (a *app) sinceText(n api.NodeState) string {
	since, epoch := "", ""
	if !n.Since.IsZero() {
		since = fmt.Sprintf(" since %s (%s)", n.Since.Local().Format("2006-01-02 15:04:05"), ageText(a.now().Sub(n.Since)))
	}
	if n.Epoch > 0 { // the first is 1
		epoch = fmt.Sprintf("epoch %d is of %s", n.Epoch, clean(or(n.Holder, "nobody")))
	}
	switch {
	case since+epoch == "":
		return ""
	case since == "":
		return fmt.Sprintf("On %s: %s.\n", clean(n.Node), epoch)
	case epoch == "":
		return fmt.Sprintf("On %s%s.\n", clean(n.Node), since)
	}
	return fmt.Sprintf("On %s%s, %s.\n", clean(n.Node), since, epoch)
}

// writeModule writes one module in detail: why on every node, where it is and how it came there, what is to be mended,
// the task that goes on, the volumes, and how their proofs stand.
func (a *app) writeModule(w io.Writer, m api.ModuleStatus) error {
	if len(m.Nodes) == 0 && m.Task != nil { // being made
		_, err := fmt.Fprintf(w, "%s is not protected yet.\n%s\n", clean(m.Name), strings.Join(wrap(goingOn(*m.Task),
			a.width()), "\n"))
		return err
	}
	t := a.moduleTable()
	addModule(&t, m, true)
	if err := t.write(w, a.color()); err != nil {
		return err
	}
	fmt.Fprintln(w)
	for _, n := range m.Nodes {
		fmt.Fprint(w, a.sinceText(n))
	}
	for _, n := range m.Nodes {
		if n.Came != nil && !n.Stale {
			fmt.Fprintln(w, strings.Join(wrap(a.cameText(m, n), a.width()), "\n"))
		}
	}
	for _, n := range m.Nodes {
		if err := a.writeNotices(w, n.Node, n.Notices); err != nil {
			return err
		}
	}
	if m.Task != nil && !m.Task.Done {
		fmt.Fprintln(w, strings.Join(wrap(goingOn(*m.Task), a.width()), "\n"))
	}
	vols := api.Status{Modules: []api.ModuleStatus{m}}.Volumes()
	if len(vols) == 0 {
		return nil
	}
	fmt.Fprintln(w)
	if err := a.writeVolumes(w, vols); err != nil {
		return err
	}
	return a.writeProofs(w, vols)
}
