package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"duet/console/api"
	"duet/console/client"
)

func (a *app) vmCommand() *cobra.Command {
	c := &cobra.Command{Use: "vm", Short: "List and protect virtual machines"}
	a.group(c)
	c.AddCommand(a.vmListCommand(), a.protectCommand(), a.releaseCommand(), a.returnCommand())
	return c
}

// vmListCommand lists what the hypervisors of all nodes that answer have; of a node that does not there is a
// sentence, in "missing" with --json, and no failure.
func (a *app) vmListCommand() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the virtual machines of the nodes, protected or not", Args: args(),
		RunE: a.call(func(ctx context.Context, c *client.Client, _ []string) error {
			if err := a.answers(ctx, c); err != nil {
				return err
			}
			all, err := c.VMs(ctx)
			if err != nil {
				return err
			}
			return a.emit(all, func(w io.Writer) error { return a.writeVMs(w, all) })
		}),
	}
}

// writeVMs writes a row for each VM on each node, then what is missing and why: a list must not look whole when it
// is not.
func (a *app) writeVMs(w io.Writer, all api.VMs) error {
	t := table{head: []string{"VM", "NODE", "STATE", "MEMORY", "PROTECTED"}}
	for _, vm := range all.VMs {
		state, module := cell{"off", dim}, cell{"no", orange}
		if vm.Running {
			state = cell{"running", green}
		}
		if vm.Module != "" {
			module = cell{"as " + vm.Module, green}
		}
		t.add(cell{vm.Name, bold}, cell{text: vm.Node}, state, cell{text: bytesText(vm.Memory)}, module)
	}
	if err := t.write(w, a.color()); err != nil {
		return err
	}
	for _, text := range all.Missing {
		fmt.Fprintf(w, "%s\n", clean(text))
	}
	return nil
}

// protectCommand begins a protect on the node that is asked, where the VM has to be defined. First it names what
// the doctor finds wrong on any node (glance), which does not keep it from anything; with --check it ends with what
// would come of it. The policy comes from a file or from the two flags for what most admins decide, not from both;
// the daemon judges it. What fails on the way leaves the VM as it was.
func (a *app) protectCommand() *cobra.Command {
	var r api.ProtectRequest
	var file, arbitration, primary string
	var images []string
	var noWait, check bool
	c := &cobra.Command{
		Use:   "protect VM",
		Short: "Put a virtual machine under protection; one that runs pauses while it is saved and restored",
		Args:  args("VM"), ValidArgsFunction: a.completeVMs,
		RunE: a.call(func(ctx context.Context, c *client.Client, args []string) error {
			if file != "" {
				b, err := a.readFile(file)
				if err != nil {
					return err
				}
				r.Config = string(b)
			}
			if arbitration+primary != "" {
				r.Config = "policy:\n" + yamlKey("arbitration", arbitration) + yamlKey("primary", primary)
			}
			for _, text := range images {
				image, err := parseImage(text)
				if err != nil {
					return err
				}
				r.Images = append(r.Images, image)
			}
			if err := a.answers(ctx, c); err != nil {
				return err
			}
			a.glance(ctx, c)
			// Whoever gave flags has no text with lines.
			own := func(err error) error {
				if err == nil || file != "" {
					return err
				}
				return ofFlags{placeless{err}}
			}
			if check {
				return own(a.checkProtect(ctx, c, args[0], r))
			}
			t, err := c.Protect(ctx, args[0], r)
			if err != nil {
				return own(err)
			}
			return a.follow(ctx, c, t, noWait)
		}),
	}
	f := c.Flags()
	f.StringVar(&r.Peer, "peer", "", "node that gets the second copy (may be left out if there are two nodes)")
	f.StringVar(&r.Module, "module", "", "name of the new module (default the VM's)")
	f.StringVar(&file, "config", "", "file with the module's YAML, - for standard input (default the usual policy)")
	f.StringVar(&arbitration, "arbitration", "", "safe: without the peer wait; available: without the peer go on if a "+
		"ping target answers (default safe)")
	f.StringArrayVar(&images, "image", nil, "where the image of a disk lies on a node, as `NODE:DISK=PATH`, such as "+
		"beta:vda=/dev/vg0/web01: "+
		"a file is made, a block device or file that exists must have the disk's size and is overwritten (default "+
		"/var/lib/duet/volumes; may be repeated)")
	f.StringVar(&primary, "primary", "", "node it belongs on, last or any (default last)")
	c.MarkFlagsMutuallyExclusive("config", "arbitration")
	c.MarkFlagsMutuallyExclusive("config", "primary")
	f.BoolVar(&check, "check", false, "only say what would keep it from being protected or from running on the other "+
		"node, "+
		"and what would not be as here; the exit code is 1 if it would be refused")
	noWaitFlag(c, &noWait)
	c.MarkFlagsMutuallyExclusive("check", "no-wait")
	a.completeNodesFor(c, "peer")
	return c
}

// ofFlags is an error about a policy that was made of flags: it names those.
type ofFlags struct{ error }

func (e ofFlags) Error() string {
	return strings.NewReplacer("policy.arbitration:", "--arbitration:", "policy.primary:", "--primary:").
		Replace(e.error.Error())
}

func (e ofFlags) Unwrap() error { return e.error }

// parseImage reads NODE:DISK=PATH; the path may have any character, also ":" and "=". Whether the place will do its
// node says.
func parseImage(text string) (api.ImageChoice, error) {
	where, path, ok := strings.Cut(text, "=")
	node, target, also := strings.Cut(where, ":")
	if !ok || !also || node == "" || target == "" || path == "" {
		return api.ImageChoice{}, usageError{fmt.Errorf("--image %q: write NODE:DISK=PATH, such as beta:vda=/dev/vg0/web01",
			text)}
	}
	return api.ImageChoice{Node: node, Target: target, Path: path}, nil
}

// yamlKey is one line of the policy, nothing if it was not given. The value is quoted: what a flag says cannot
// become another key.
func yamlKey(key, value string) string {
	if value == "" {
		return ""
	}
	return "  " + key + ": " + strconv.Quote(value) + "\n"
}

// returnCommand begins a task on the node that is asked, which has to be the one that runs the VM.
func (a *app) returnCommand() *cobra.Command {
	var noWait bool
	c := &cobra.Command{
		Use: "return MODULE", Short: "Put disks of a running virtual machine back onto their volumes",
		Long: "Put disks of a running virtual machine that were moved elsewhere, as \"virsh blockcopy --pivot\" does, back " +
			"onto their volumes: " +
			"they are copied while it runs.\nA snapshot over a volume is merged with \"virsh blockcommit VM DISK --active " +
			"--pivot\" instead.",
		Args: args("MODULE"), ValidArgsFunction: a.completeModules,
		RunE: a.call(func(ctx context.Context, c *client.Client, args []string) error {
			t, err := c.Return(ctx, args[0])
			if err != nil {
				return err
			}
			return a.follow(ctx, c, t, noWait)
		}),
	}
	noWaitFlag(c, &noWait)
	return c
}

// releaseCommand begins a release on the node that is asked: the VM stays there, so the newest data have to be
// there. The peer forgets the module and keeps its images under another name. --without-peer does without its
// answer; what it has missed it is told when it is back.
func (a *app) releaseCommand() *cobra.Command {
	var r api.ReleaseRequest
	var noWait bool
	c := &cobra.Command{
		Use:   "release MODULE",
		Short: "End the protection of a module's virtual machine; one that runs pauses while it is saved and restored",
		Args:  args("MODULE"), ValidArgsFunction: a.completeModules,
		RunE: a.call(func(ctx context.Context, c *client.Client, args []string) error {
			t, err := c.Release(ctx, args[0], r)
			if err != nil {
				return err
			}
			return a.follow(ctx, c, t, noWait)
		}),
	}
	c.Flags().BoolVar(&r.WithoutPeer, "without-peer", false,
		"also if the other node is gone; never while it may run the VM")
	noWaitFlag(c, &noWait)
	return c
}
