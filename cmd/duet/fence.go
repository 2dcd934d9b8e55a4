package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"duet/console/api"
	"duet/console/client"
)

// fenceCommand holds what is known of how nodes are switched off. set and remove count at once on all nodes that
// answer; where one does not, they exit with 1 although the others know it. list and the document of a test show
// secrets as ***. test switches nothing; it exits with 1 at the first device that could not do its work.
func (a *app) fenceCommand() *cobra.Command {
	c := &cobra.Command{Use: "fence", Short: "Say how a node can be switched off by the other one",
		Long: `Say how a node can be switched off by the other one, through the executables of the
ClusterLabs fence-agents (Debian package fence-agents). A confirmation that the peer is
off decides where there is no witness; "policy.fence: before-start" asks for it in any
case before a VM starts on the other node.`}
	a.group(c)
	c.AddCommand(a.fenceSetCommand(), &cobra.Command{
		Use: "list", Short: "List the fence devices of the nodes", Args: args(),
		RunE: a.call(func(ctx context.Context, c *client.Client, _ []string) error {
			all, err := brief(ctx, c.Fences)
			if err != nil {
				return err
			}
			return a.emit(all, func(w io.Writer) error { return a.writeFences(w, all) })
		}),
	}, &cobra.Command{
		Use: "test NODE", Short: "Ask the devices of a node whether they could switch it off, and switch nothing",
		Args: args("NODE"),
		RunE: a.call(func(ctx context.Context, c *client.Client, args []string) error {
			st, err := c.TestFence(ctx, args[0])
			if err != nil {
				return err
			}
			return a.say(st, "%s", clean(st.Result))
		}),
	}, &cobra.Command{
		Use: "remove NODE", Short: "Forget the fence devices of a node", Args: args("NODE"),
		RunE: a.call(func(ctx context.Context, c *client.Client, args []string) error {
			if err := c.SetFence(ctx, args[0], nil); err != nil {
				return err
			}
			return a.say(struct{}{}, "%s has no fence device any more.", clean(args[0]))
		}),
	})
	return c
}

// fenceSetCommand replaces all devices of a node. One device comes from flags; more, in levels, only from a file,
// which has to be readable for this command, not for the daemon.
func (a *app) fenceSetCommand() *cobra.Command {
	var agent, file string
	var options []string
	var timeout time.Duration
	var c *cobra.Command
	c = &cobra.Command{
		Use: "set NODE --agent AGENT --option KEY=VALUE…", Short: "Say how a node can be switched off",
		Long: `Say how a node can be switched off. The options are those of the agent ("man fence_ipmilan").
The value - reads one secret from standard input. Several devices or levels go in a
file of JSON: [[{"name": "psu1", "agent": "fence_apc_snmp", "options": {…}, "timeout": "30s"},
…], …]; all devices of a level have to confirm, the first level that does wins.`,
		Args: args("NODE"),
		RunE: a.call(func(ctx context.Context, daemon *client.Client, args []string) error {
			timed := c.Flags().Changed("timeout")
			if timed && file != "" {
				return usageError{errors.New("--timeout goes with --agent; in a --file each device has its \"timeout\"")}
			}
			levels, err := a.fenceLevels(agent, options, file)
			if err != nil {
				return err
			}
			if timed {
				levels[0][0].Timeout = timeout.String()
			}
			if err := daemon.SetFence(ctx, args[0], levels); err != nil {
				return err
			}
			return a.say(struct{}{}, "Known. Now try it: duet cluster fence test %s", clean(args[0]))
		}),
	}
	c.Flags().StringVar(&agent, "agent", "", "executable, as fence_ipmilan, fence_redfish, fence_virsh")
	c.Flags().StringArrayVar(&options, "option", nil, "KEY=VALUE, once per option")
	c.Flags().DurationVar(&timeout, "timeout", 0, "how long each of its commands may take (default 30s)")
	c.Flags().StringVar(&file, "file", "", "file of JSON with levels of devices")
	return c
}

// fenceLevels reads the devices from either source; both, or none, is a wrong command line. A file without a device
// is refused: the daemon would take it for a removal. Only one option can be "-": it reads standard input to its
// end.
func (a *app) fenceLevels(agent string, options []string, file string) (levels [][]api.FenceDevice, err error) {
	switch {
	case (agent == "") == (file == ""), file != "" && len(options) > 0:
		return nil, usageError{errors.New("give --agent and its --option, or --file")}
	case file != "":
		b, err := os.ReadFile(file)
		if err == nil {
			err = json.Unmarshal(b, &levels)
		}
		if err != nil {
			return nil, fmt.Errorf("read devices: %w", err)
		}
		if len(levels) == 0 {
			return nil, fmt.Errorf("%s has no device: `duet cluster fence remove` forgets those of a node", file)
		}
		return levels, nil
	}
	secret := "" // the option that has it
	d := api.FenceDevice{Name: agent, Agent: agent, Options: make(map[string]string)}
	for _, o := range options {
		k, v, ok := strings.Cut(o, "=")
		if !ok || k == "" {
			return nil, usageError{fmt.Errorf("--option %q: write KEY=VALUE", o)}
		}
		if v == "-" && secret != "" {
			return nil, usageError{fmt.Errorf("--option %s=-: standard input has one secret, and %s takes it: put both "+
				"in a --file", k, secret)}
		}
		if v == "-" { // keeps it out of the list of processes
			secret = k
			b, err := io.ReadAll(io.LimitReader(a.in, 4096))
			if err != nil {
				return nil, fmt.Errorf("read secret: %w", err)
			}
			v = strings.TrimRight(string(b), "\r\n")
		}
		d.Options[k] = v
	}
	return [][]api.FenceDevice{{d}}, nil
}

// writeFences writes a row for each device; levels count from 1, the first is tried first.
func (a *app) writeFences(w io.Writer, all []api.FenceStatus) error {
	if len(all) == 0 {
		_, err := io.WriteString(w, "No node has a fence device.\n")
		return err
	}
	t := table{head: []string{"NODE", "LEVEL", "DEVICE", "AGENT", "TIMEOUT", "OPTIONS"}}
	for _, st := range all {
		for i, l := range st.Levels {
			for _, d := range l {
				var opts []string
				for _, k := range slices.Sorted(maps.Keys(d.Options)) {
					opts = append(opts, k+"="+d.Options[k])
				}
				t.add(cell{st.Node, bold}, cell{text: fmt.Sprint(i + 1)}, cell{text: d.Name}, cell{text: d.Agent},
					cell{text: d.Timeout}, cell{text: strings.Join(opts, " ")})
			}
		}
	}
	return t.write(w, a.color())
}
