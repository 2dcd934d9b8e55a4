package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"duet/console/api"
	"duet/console/client"
)

func (a *app) moduleCommand() *cobra.Command {
	c := &cobra.Command{Use: "module", Short: "Install and uninstall applications"}
	a.group(c)
	c.AddCommand(a.installCommand(), a.uninstallCommand())
	return c
}

// installCommand begins an install on the node that is asked, whose directories are taken in. The daemon judges the
// document.
func (a *app) installCommand() *cobra.Command {
	var r api.InstallRequest
	var size string
	var noWait bool
	c := &cobra.Command{
		Use:   "install FILE",
		Short: "Make a module of an application: directories, addresses and commands",
		Args:  args("FILE"),
		RunE: a.call(func(ctx context.Context, c *client.Client, args []string) error {
			b, err := a.readFile(args[0])
			if err != nil {
				return err
			}
			r.Config = string(b)
			if size != "" {
				if r.Size, err = parseSize(size); err != nil {
					return usageError{fmt.Errorf("--size: %w", err)}
				}
			}
			if err := a.answers(ctx, c); err != nil {
				return err
			}
			t, err := c.Install(ctx, r)
			if err != nil {
				return err
			}
			return a.follow(ctx, c, t, noWait)
		}),
	}
	f := c.Flags()
	f.StringVar(&r.Peer, "peer", "", "node that gets the second copy (may be left out if there are two nodes)")
	f.StringVar(&size, "size", "", "of the volume on which the directories lie, such as 10G")
	noWaitFlag(c, &noWait)
	a.completeNodesFor(c, "peer")
	return c
}

// uninstallCommand begins the end of a stopped module on the node that is asked, which has to have the newest files.
func (a *app) uninstallCommand() *cobra.Command {
	var r api.ReleaseRequest
	var noWait bool
	c := &cobra.Command{
		Use:   "uninstall MODULE",
		Short: "End a module of an application that is stopped; its files stay in the image of its volume",
		Args:  args("MODULE"), ValidArgsFunction: a.completeModules,
		RunE: a.call(func(ctx context.Context, c *client.Client, args []string) error {
			if err := a.answers(ctx, c); err != nil {
				return err
			}
			t, err := c.Release(ctx, args[0], r)
			if err != nil {
				return err
			}
			return a.follow(ctx, c, t, noWait)
		}),
	}
	c.Flags().BoolVar(&r.WithoutPeer, "without-peer", false, "also if the other node cannot be told; it forgets the "+
		"module when it answers again")
	noWaitFlag(c, &noWait)
	return c
}

// parseSize reads a number of bytes with a binary unit: 10G and 10GiB are 10 × 2³⁰.
func parseSize(text string) (int64, error) {
	digits := strings.TrimRight(text, "KMGTiB")
	n, err := strconv.ParseInt(digits, 10, 64)
	shift, known := map[string]int{"": 0, "B": 0, "K": 10, "M": 20, "G": 30, "T": 40}[strings.TrimSuffix(
		text[len(digits):], "iB")]
	if err != nil || !known || n <= 0 || n > 1<<(62-shift) {
		return 0, fmt.Errorf("%q is no size such as 500M, 10G or 2T", text)
	}
	return n << shift, nil
}
