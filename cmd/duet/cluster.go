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

	"duet/cluster"
	"duet/cmd/duet/setup"
	"duet/console/api"
	"duet/console/client"
)

// clusterCommand holds what changes who takes part. init, join, leave and rejoin work on this computer's files, the
// others ask a daemon. status is the head of "duet status", with its exit codes.
func (a *app) clusterCommand() *cobra.Command {
	c := &cobra.Command{Use: "cluster", Short: "Make a cluster and show its nodes"}
	a.group(c)
	c.AddCommand(a.initCommand(), a.joinCommand(), a.tokenCommand(), a.removeCommand(), a.leaveCommand(),
		a.rejoinCommand(), a.witnessCommand(), a.fenceCommand(), a.pingCommand(), &cobra.Command{
			Use: "status", Short: "Show the nodes of the cluster", Args: args(),
			Long: "Show the nodes and witnesses of the cluster, and how it stands. The exit code is that of \"duet status\":\n" +
				"0 ok, 10 degraded, 11 down; 1 without an answer.",
			RunE: a.call(func(ctx context.Context, c *client.Client, _ []string) error {
				st, err := brief(ctx, c.Status)
				if err != nil {
					return err
				}
				err = a.emit(members{st.Verdict, st.Nodes, st.Gone, st.Witnesses},
					func(w io.Writer) error { return a.writeNodes(w, st) })
				return errors.Join(err, levelExit(st.Verdict.Level))
			}),
		})
	return c
}

// members is what cluster status shows with --json.
type members struct {
	Verdict   api.Verdict         `json:"verdict"`
	Nodes     []api.NodeStatus    `json:"nodes"`
	Gone      []api.GoneNode      `json:"gone,omitempty"`
	Witnesses []api.WitnessStatus `json:"witnesses,omitempty"`
}

// made is what init and join say; the whole cluster.Config holds secret keys.
type made struct {
	Cluster string         `json:"cluster"`
	Node    cluster.NodeID `json:"node"`
	Dir     string         `json:"dir"` // as --dir said it
}

const addrUsage = "this node's IP address, once per heartbeat network: IP (they are named hb1, hb2…) or NETWORK=IP"

// initCommand makes the node's files; that duetd finds them is its next start's business. What it says is durable.
// Then it looks at this host and tells problems on standard error, which do not change the exit code: nothing runs
// yet, and this is the cheapest moment to mend them. On a member it fails and changes nothing.
func (a *app) initCommand() *cobra.Command {
	var r setup.InitRequest
	var addrs []string
	c := &cobra.Command{
		Use: "init --name CLUSTER --node NAME --addr IP[,IP2]", Short: "Make a new cluster with this node as its first",
		Long: "Make a new cluster with this node as its first: the authority, this node's certificate and the keys of the " +
			"heartbeats.\nRuns on the node itself, before its duetd is started.",
		Args: args(),
		RunE: a.do(func(ctx context.Context, _ []string) error {
			err := a.setup.Free(r.Dir)
			if err != nil {
				return err
			}
			if r.Addrs, err = needed(r.Node, addrs); err != nil {
				return err
			}
			if r.Cluster == "" {
				return usageError{errors.New("give the cluster a name with --name")}
			}
			conf, err := a.setup.Init(ctx, r)
			if err != nil {
				return err
			}
			// After the result: it takes seconds, and what was done is done.
			defer a.glanceHere(ctx, r.Dir)
			return a.say(made{conf.Name, conf.Self, r.Dir},
				"Cluster %s is made, this is its node %s.\nNext: systemctl enable --now duetd; then \"duet cluster token\" lets "+
					"the second node join.", conf.Name, conf.Self)
		}),
	}
	f := c.Flags()
	f.StringVar(&r.Cluster, "name", "", "name of the cluster")
	f.IntVar(&r.Port, "port", cluster.DefaultPort, "port of all traffic between nodes; heartbeats use the next one too")
	f.DurationVar(&r.Detection, "detection", cluster.DefaultDetection,
		"how long all heartbeats are silent before a node is taken for dead")
	f.StringSliceVar(&r.Ping, "ping", nil, "addresses that tell a dead peer from a dead network (default the gateway)")
	nodeSetupFlags(c, &r.Dir, &r.Node, &addrs)
	return c
}

// joinCommand asks the node at ADDRESS, on the port of the traffic between nodes and not of the API, and stores
// what that gives. The token is of that one node: another one does not know it. After the join it looks at this
// host as init does.
func (a *app) joinCommand() *cobra.Command {
	var r setup.JoinRequest
	var addrs []string
	c := &cobra.Command{
		Use: "join ADDRESS --token T --node NAME --addr IP[,IP2]", Short: "Join this node to a cluster",
		Long: "Join this node to the cluster of the node at ADDRESS, where \"duet cluster token\" gave the token.\nRuns on " +
			"the new node itself, before its duetd is started.",
		Args: args("ADDRESS"), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: a.do(func(ctx context.Context, args []string) error {
			err := a.setup.Free(r.Dir)
			if err != nil {
				return err
			}
			if r.Addrs, err = needed(r.Node, addrs); err != nil {
				return err
			}
			if err := a.readToken(&r.Token); err != nil {
				return err
			}
			r.At = args[0]
			conf, err := a.setup.Join(ctx, r)
			if err != nil {
				return err
			}
			defer a.glanceHere(ctx, r.Dir)
			return a.say(made{conf.Name, conf.Self, r.Dir},
				"This is now node %s of cluster %s.\nNext: systemctl enable --now duetd", conf.Self, conf.Name)
		}),
	}
	c.Flags().StringVar(&r.Token, "token", "", "what \"duet cluster token\" said, or - to read it from standard input")
	nodeSetupFlags(c, &r.Dir, &r.Node, &addrs)
	return c
}

// readToken reads a token from standard input if it is "-", which keeps it out of the list of processes and of the
// shell's history.
func (a *app) readToken(token *string) error {
	if *token == "-" {
		b, err := io.ReadAll(io.LimitReader(a.in, 4096))
		if err != nil {
			return fmt.Errorf("read token: %w", err)
		}
		*token = strings.TrimSpace(string(b))
	}
	if *token == "" {
		return usageError{errors.New("give what \"duet cluster token\" said on the first node with --token")}
	}
	return nil
}

// leaveCommand puts what this node has aside, durably. It asks nobody but its own daemon, which must not run, and
// tells nobody: to the cluster this node is a member until "duet cluster remove".
func (a *app) leaveCommand() *cobra.Command {
	var dir string
	var yes bool
	c := &cobra.Command{
		Use: "leave", Short: "End the membership of this node, on the node itself",
		Long: "End the membership of this node, for one that was removed from its cluster or is to be part of another one. " +
			"Runs on the\nnode itself while its duetd is stopped. Nothing is deleted: what the node had, images in its " +
			"directory included, goes into\na folder that is named. The other node is told with \"duet cluster remove\".",
		Args: args(),
		RunE: a.do(func(ctx context.Context, _ []string) error {
			if err := a.mayLeave(ctx, "leave", yes); err != nil {
				return err
			}
			aside, err := a.setup.Leave(dir, a.now())
			if err != nil {
				return err
			}
			return a.say(left{aside}, "This node is in no cluster any more. What it had is kept in %s.", clean(aside))
		}),
	}
	leaveFlags(c, &dir, &yes)
	return c
}

// left is what leave and rejoin say.
type left struct {
	Kept string `json:"kept"` // the folder, within the node's directory
}

// leaveFlags are those that leave and rejoin share.
func leaveFlags(c *cobra.Command, dir *string, yes *bool) {
	c.Flags().StringVar(dir, "dir", setup.DefaultDir, "directory of the node's state")
	c.Flags().BoolVar(yes, "yes", false, "do not ask")
}

// mayLeave refuses while the daemon runs, which has the files open and VMs to look after, and asks. That it runs is
// known by its answer, whatever that is, and by that it does not answer in time: only a socket that nobody serves
// is proof that it does not. It asks where --connect says, and refuses if that is another computer, which says nothing
// of this one's daemon. The look is bounded, the question is not.
func (a *app) mayLeave(ctx context.Context, what string, yes bool) error {
	if !a.here() {
		return usageError{fmt.Errorf("--connect %s: a node leaves on its own computer: leave out --connect and "+
			"DUET_CONNECT, or name the socket of its duetd", a.connect.Connect)}
	}
	c, err := client.New(a.connect)
	if err != nil {
		return err
	}
	defer c.Close()
	switch st, err := brief(ctx, c.Status); {
	case err == nil:
		return stillRuns(st)
	case !errors.Is(err, client.ErrAway), errors.Is(err, context.DeadlineExceeded): // whatever it says, it runs
		return fmt.Errorf("duetd runs here: %s (%w)", stopFirst, err)
	case yes:
		return nil
	}
	return a.confirm(ctx, "This node forgets its cluster and its modules; copies of VMs in its directory are kept and no "+
		"longer used.", fmt.Errorf("to %s wants a confirmation: repeat with --yes", what), "Do you want to "+what+"?")
}

// stopFirst is how a node is brought to where it may leave. The end of the daemon ends no VM.
const stopFirst = "`systemctl stop duetd`, then this command again"

// stillRuns is the refusal of a daemon that answers. Only VMs of this host are to be stopped before: to stop a module
// that runs on the other node would end it there. On a node that was removed none is: what waits there is over, and
// status says to stop the daemon and no more.
func stillRuns(st api.Status) error {
	as := st.Self
	if st.Removed != "" {
		as += ", which was removed from cluster " + st.Cluster
	}
	var here []string
	for _, m := range st.Modules {
		if n, err := m.On(st.Self); err == nil && slices.Contains([]string{"running", "paused", "frozen", "io-error"}, n.VM) {
			here = append(here, "`duet stop "+m.Name+"`")
		}
	}
	if len(here) == 0 || st.Removed != "" {
		return fmt.Errorf("duetd runs here as node %s: %s", as, stopFirst)
	}
	return fmt.Errorf("duetd runs here as node %s, and VMs have their disks from it: %s first, then %s", as,
		strings.Join(here, ", "), stopFirst)
}

// rejoinCommand is leave and join in one, for a node that was removed: its name, networks and addresses are those
// it had. What it had comes back if it cannot join. Its copies of VMs are in what is kept and are made anew.
func (a *app) rejoinCommand() *cobra.Command {
	var r setup.JoinRequest
	var yes bool
	c := &cobra.Command{
		Use: "rejoin ADDRESS --token T", Short: "Bring this node back that was removed from its cluster, on the node itself",
		Long: "Bring this node back into the cluster of the node at ADDRESS, where \"duet cluster token\" gave the token, " +
			"under its name and\naddresses. Runs on the node itself while its duetd is stopped. It gets the second copies " +
			"anew; what it had is kept in a\nfolder that is named, but for the token of its API, which stays as it is.",
		Args: args("ADDRESS"), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: a.do(func(ctx context.Context, args []string) error {
			if err := a.readToken(&r.Token); err != nil {
				return err
			}
			if err := a.mayLeave(ctx, "rejoin", yes); err != nil {
				return err
			}
			r.At = args[0]
			conf, aside, err := a.setup.Rejoin(ctx, r, a.now())
			if err != nil {
				return err
			}
			return a.say(left{aside}, "This is node %s of cluster %s again. What it had is kept in %s: delete that when all "+
				"runs. The token of its API is the one it had.\nNext: systemctl start duetd", conf.Self, conf.Name,
				clean(aside))
		}),
	}
	c.Flags().StringVar(&r.Token, "token", "", "what \"duet cluster token\" said, or - to read it from standard input")
	leaveFlags(c, &r.Dir, &yes)
	return c
}

// removeCommand has the daemon take a node off the cluster. The daemon refuses while that node's heartbeats are
// heard: it would go on with its guests although nobody talks to it. It is durable on the node that is asked when
// that answers; other members learn it when they meet one that knows. --json gives the api.NodeRemoval.
func (a *app) removeCommand() *cobra.Command {
	var yes bool
	c := &cobra.Command{
		Use: "remove NODE", Short: "Take a node that is gone for good off the cluster",
		Long: "Take a node that is gone for good off the cluster. Modules whose second copy was there go on alone; a node " +
			"that joins under\nits name gets the copies anew, and \"duet vm release --without-peer\" ends the protection " +
			"instead.",
		Args: args("NODE"), ValidArgsFunction: a.completeNodes,
		RunE: a.call(func(ctx context.Context, c *client.Client, args []string) error {
			if err := a.mayRemove(ctx, c, args[0], yes); err != nil {
				return err
			}
			gone, err := c.RemoveNode(ctx, args[0])
			if err != nil {
				return err
			}
			keeps := ""
			if gone.Keeps != "" {
				keeps = "\n" + clean(gone.Keeps)
			}
			if len(gone.Modules) == 0 {
				return a.say(gone, "%s is no member any more.%s", clean(gone.Node), keeps)
			}
			return a.say(gone, "%s is no member any more. %s had the second copy there: a new computer that joins with --node "+
				"%s gets it anew;\n\"duet vm release MODULE --without-peer\" ends the protection instead, for another peer.%s",
				clean(gone.Node), clean(strings.Join(gone.Modules, ", ")), clean(gone.Node), keeps)
		}),
	}
	c.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return c
}

// mayRemove asks whether a node is to be removed that modules have their second copies on. Of one that the daemon would
// refuse there is no question: one that answers, the daemon's own, no member. A node without modules is removed without
// one.
func (a *app) mayRemove(ctx context.Context, c *client.Client, node string, yes bool) error {
	st, err := brief(ctx, c.Status)
	if err != nil {
		return err
	}
	var there []string
	for _, m := range st.Modules {
		if _, err := m.On(node); err == nil {
			there = append(there, m.Name)
		}
	}
	i := slices.IndexFunc(st.Nodes, func(n api.NodeStatus) bool { return n.Name == node })
	switch {
	case yes, len(there) == 0, i < 0, node == st.Self:
		return nil
	case st.Nodes[i].Alive:
		return fmt.Errorf("%w: node %s answers: stop its duetd first, for good: `systemctl disable --now duetd` there",
			api.ErrConflict, node)
	}
	return a.confirm(ctx, fmt.Sprintf("%s is a node of %s: they have one copy from then on, until a node joins in its "+
		"place.\nWhat only %s has stays on it, and is not used any more.", node, strings.Join(there, ", "), node),
		fmt.Errorf("to remove %s wants a confirmation: repeat with --yes if it is gone for good", node),
		"Is it gone for good?")
}

// nodeSetupFlags are those that init and join share; needed checks them.
func nodeSetupFlags(c *cobra.Command, dir *string, node *cluster.NodeID, addrs *[]string) {
	f := c.Flags()
	f.StringVar((*string)(node), "node", "", "name of this node")
	f.StringSliceVar(addrs, "addr", nil, addrUsage)
	f.StringVar(dir, "dir", setup.DefaultDir, "directory of the node's state")
}

// needed checks the flags that init and join share, before anything is asked or written: its errors are of usage.
func needed(node cluster.NodeID, addrs []string) ([]setup.Addr, error) {
	if node == "" {
		return nil, usageError{errors.New("give this node a name with --node")}
	}
	out, err := setup.ParseAddrs(addrs)
	if err != nil {
		return nil, usageError{fmt.Errorf("--addr: %w", err)}
	}
	return out, nil
}

// tokenCommand makes a token that is durable on the node that is asked, and good there only, once, for --life (up
// to a week, which the daemon checks). Who has it can become a member: with --json it is on standard output too.
func (a *app) tokenCommand() *cobra.Command {
	life := time.Hour
	c := &cobra.Command{
		Use: "token", Short: "Make a one-time token for a node that is to join or rejoin", Args: args(),
		RunE: a.call(func(ctx context.Context, c *client.Client, _ []string) error {
			t, err := c.NewToken(ctx, life)
			if err != nil {
				return err
			}
			if err := a.say(t, "%s", clean(t.Token)); err != nil || a.json {
				return err
			}
			// Beside the token, which is alone on standard output, so that a script can keep it.
			_, err = fmt.Fprintf(a.err, "Good once, until %s. With an address of this node, on a new one, or on one that was "+
				"removed:\n  duet cluster join ADDRESS --token %s --node NAME --addr IP\n  duet cluster rejoin ADDRESS --token "+
				"%s\n", t.Expires.Local().Format("2006-01-02 15:04"), clean(t.Token), clean(t.Token))
			return err
		}),
	}
	c.Flags().DurationVar(&life, "life", life, "how long it is good")
	return c
}
