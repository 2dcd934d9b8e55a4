package main

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"duet/console/api"
	"duet/console/client"
)

// completeTime is how long a shell waits for names when the user presses tab: a node that is away must not hang a
// prompt.
const completeTime = 500 * time.Millisecond

// nodeFlag adds --node with completion. The names are not checked here: the daemon knows which there are.
func (a *app) nodeFlag(c *cobra.Command, node *string, usage string) {
	c.Flags().StringVar(node, "node", "", usage)
	a.completeNodesFor(c, "node")
}

// completeNodesFor completes a flag that c has already; one that it has not is a panic.
func (a *app) completeNodesFor(c *cobra.Command, flag string) {
	err := c.RegisterFlagCompletionFunc(flag, func(c *cobra.Command, _ []string, typed string) ([]string,
		cobra.ShellCompDirective) {
		return a.names(c, typed, nodeNames)
	})
	if err != nil {
		panic(err) // the flag does not exist: a mistake in this program
	}
}

// completeNodes and those below complete the first argument; for what follows they offer nothing, and never files.
func (a *app) completeNodes(c *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return a.names(c, typed, nodeNames)
}

// completeModules offers those of the whole cluster, as the node that is asked knows them.
func (a *app) completeModules(c *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return a.names(c, typed, func(st api.Status) []string {
		var out []string
		for _, m := range st.Modules {
			out = append(out, m.Name)
		}
		return out
	})
}

// completeVolumes offers each volume once: it is on two nodes.
func (a *app) completeVolumes(c *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return a.names(c, typed, func(st api.Status) []string {
		var out []string
		seen := map[string]bool{}
		for _, v := range st.Volumes() {
			if !seen[v.Name] {
				out = append(out, v.Name)
			}
			seen[v.Name] = true
		}
		return out
	})
}

// completeVMs offers those that are not protected yet.
func (a *app) completeVMs(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return a.offer(cmd, typed, func(ctx context.Context, c *client.Client) (out []string, err error) {
		all, err := c.VMs(ctx)
		for _, vm := range all.VMs {
			if vm.Module == "" {
				out = append(out, vm.Name)
			}
		}
		return out, err
	})
}

// completeTasks offers those that the node that is asked knows.
func (a *app) completeTasks(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return a.offer(cmd, typed, func(ctx context.Context, c *client.Client) (out []string, err error) {
		all, err := c.Tasks(ctx)
		for _, t := range all {
			out = append(out, t.ID)
		}
		return out, err
	})
}

// names is offer for names that stand in the status.
func (a *app) names(cmd *cobra.Command, typed string, pick func(api.Status) []string) ([]string,
	cobra.ShellCompDirective) {
	return a.offer(cmd, typed, func(ctx context.Context, c *client.Client) ([]string, error) {
		st, err := c.Status(ctx)
		return pick(st), err
	})
}

// offer asks the node for names that begin with what was typed. It stays silent if there is no answer: a shell
// prompt is no place for errors. Names are cleaned: the shell prints them, and the user's next line has them.
func (a *app) offer(cmd *cobra.Command, typed string, ask func(context.Context, *client.Client) ([]string, error)) (
	[]string, cobra.ShellCompDirective) {
	parent := cmd.Context()
	if parent == nil {
		parent = context.Background()
	}
	ctx, cancel := context.WithTimeout(parent, completeTime)
	defer cancel()
	c, err := client.New(a.connect)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	defer c.Close()
	all, err := ask(ctx, c)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var out []string
	for _, n := range all {
		if strings.HasPrefix(n, typed) {
			out = append(out, clean(n))
		}
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}
