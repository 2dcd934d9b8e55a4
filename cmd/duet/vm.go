package main

import (
	"context"

	"github.com/spf13/cobra"

	"duet/console/api"
	"duet/console/client"
)

func (a *app) vmCommand() *cobra.Command {
	c := &cobra.Command{Use: "vm", Short: "Protect virtual machines"}
	a.group(c)
	c.AddCommand(a.protectCommand(), a.releaseCommand())
	return c
}

func (a *app) protectCommand() *cobra.Command {
	var r api.ProtectRequest
	var file string
	var noWait bool
	c := &cobra.Command{
		Use: "protect VM", Short: "Put a virtual machine under protection; it goes on running",
		Args: args("VM"), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: a.call(func(ctx context.Context, c *client.Client, args []string) error {
			if file != "" {
				b, err := a.readFile(file)
				if err != nil {
					return err
				}
				r.Config = string(b)
			}
			t, err := c.Protect(ctx, args[0], r)
			if err != nil {
				return err
			}
			return a.follow(ctx, c, t, noWait)
		}),
	}
	f := c.Flags()
	f.StringVar(&r.Peer, "peer", "", "node that gets the second copy (may be left out if there are two nodes)")
	f.StringVar(&r.Module, "module", "", "name of the new module (default the VM's)")
	f.StringVar(&file, "config", "", "file with the module's YAML, - for standard input (default the usual policy)")
	noWaitFlag(c, &noWait)
	a.completeNodesFor(c, "peer")
	return c
}

func (a *app) releaseCommand() *cobra.Command {
	var noWait bool
	c := &cobra.Command{
		Use: "release MODULE", Short: "End the protection of a module's virtual machine; it goes on running",
		Args: args("MODULE"), ValidArgsFunction: a.completeModules,
		RunE: a.call(func(ctx context.Context, c *client.Client, args []string) error {
			t, err := c.Release(ctx, args[0])
			if err != nil {
				return err
			}
			return a.follow(ctx, c, t, noWait)
		}),
	}
	noWaitFlag(c, &noWait)
	return c
}
