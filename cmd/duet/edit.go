package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"duet/appmodules"
	"duet/appmodules/config"
	"duet/console/api"
	"duet/console/client"
)

// apply makes text, an edit of version base, the configuration of the module that it names, and says what became of it.
// Base 0 is of whatever there is: what came in between is replaced. was is what there is, for mayEdit.
func (a *app) apply(ctx context.Context, c *client.Client, was string, text []byte, base uint64, yes bool) error {
	follows, err := a.mayEdit(ctx, c, []byte(was), text, yes)
	if err != nil {
		return err
	}
	conf, err := c.Apply(ctx, text, base)
	if err != nil {
		return err
	}
	return a.say(conf, "%s has configuration version %d%s", clean(conf.Module), conf.Version, follows)
}

func editFlag(c *cobra.Command, yes *bool) {
	c.Flags().BoolVar(yes, "yes", false, "do not ask, whatever follows at once")
}

// mayEdit asks before an edit that makes something happen to the guest at once, and returns what that is, for the last
// line, behind a colon. An edit that is not good the node refuses.
func (a *app) mayEdit(ctx context.Context, c *client.Client, was, is []byte, yes bool) (string, error) {
	before, err := config.Parse("", was)
	if err != nil {
		return "", nil
	}
	after, err := config.Parse("", is)
	if err != nil {
		return "", nil
	}
	m, err := a.module(ctx, c, after.Name)
	if err != nil {
		return "", err
	}
	facts := follows(before.Policy, after.Policy, m)
	if facts == "" {
		return "", nil
	}
	if !yes {
		wants := fmt.Errorf("this change of %s wants a confirmation: repeat with --yes to make it all the same", after.Name)
		err = a.confirm(ctx, facts, wants, "Do you want to make this change?")
	}
	return ": " + clean(facts), err
}

// follows is what happens to the guest of m at once when its policy becomes another one, in a sentence; empty: nothing.
func follows(was, is appmodules.Policy, m api.ModuleStatus) string {
	home := func(p appmodules.Policy) string {
		if p.Failback != "auto" {
			return ""
		}
		return p.Primary
	}
	to := home(is)
	for _, n := range m.Nodes {
		switch {
		case n.Stale || n.Role != "PRIM" && n.Role != "ALONE":
		case n.VM == "frozen" && is.Frozen > 0 && (was.Frozen == 0 || is.Frozen < was.Frozen):
			return fmt.Sprintf("%s stands still on %s, and its guest is ended when it has for %v", m.Name, n.Node,
				time.Duration(is.Frozen))
		case to == "" || to == home(was) || n.Node == to:
		case inStep(m, to):
			return fmt.Sprintf("%s moves to %s now: its guest is shut down on %s and started on %s", m.Name, to, n.Node, to)
		default:
			return fmt.Sprintf("%s moves to %s as soon as its copy there is complete: its guest is shut down on %s and started "+
				"on %s then", m.Name, to, n.Node, to)
		}
	}
	return ""
}

// inStep: the copy of m on that node may take over.
func inStep(m api.ModuleStatus, node string) bool {
	n, err := m.On(node)
	return err == nil && !n.Stale && n.Role == "SECOND" && n.Status == "Ready"
}

// setKeyCommand reads the configuration, exchanges those keys in its text and applies that, all or none: other keys
// are as the node had them when it was read. A key that is not known, or a value that is none, is exit 1. Its errors
// have no lines: nobody sees the text that they count in.
func (a *app) setKeyCommand() *cobra.Command {
	var yes bool
	c := &cobra.Command{
		Use:   "set MODULE KEY=VALUE...",
		Short: "Change keys of a module's configuration, such as policy.restart.max=5",
		Args: func(c *cobra.Command, got []string) error {
			if len(got) == 3 && !strings.Contains(got[1]+got[2], "=") {
				return fmt.Errorf("write %s=%s in one word: usage: %s", got[1], got[2], c.UseLine())
			}
			return args("MODULE", "KEY=VALUE")(c, got[:min(len(got), 2)])
		},
		ValidArgsFunction: a.completeModules,
		RunE: a.call(func(ctx context.Context, c *client.Client, args []string) error {
			for _, arg := range args[1:] {
				if _, value, ok := strings.Cut(arg, "="); !ok || value == "" {
					return usageError{fmt.Errorf("%q: write KEY=VALUE, such as policy.restart.max=5", arg)}
				}
			}
			conf, err := configOf(ctx, c, args[0])
			if err != nil {
				return err
			}
			text := []byte(conf.YAML)
			var keys []string
			for _, arg := range args[1:] {
				key, value, _ := strings.Cut(arg, "=")
				// It would be a change of the module that has that name.
				if key == "name" {
					return errOtherName
				}
				if slices.Contains(keys, key) {
					return usageError{fmt.Errorf("%s is given twice", key)}
				}
				text, err = config.Set(text, key, value)
				if errors.Is(err, config.ErrNoKey) {
					return noKey(key)
				}
				if err != nil {
					return err
				}
				keys = append(keys, key)
			}
			follows, err := a.mayEdit(ctx, c, []byte(conf.YAML), text, yes)
			if err != nil {
				return err
			}
			now, err := c.Apply(ctx, text, conf.Version)
			if err != nil {
				return placeless{err}
			}
			return a.say(now, "%s: %s, version %d%s", clean(now.Module), keysText(keys, conf, now), now.Version, follows)
		}),
	}
	editFlag(c, &yes)
	return c
}

// keysText says what became of each of those keys.
func keysText(keys []string, before, now api.Config) string {
	var out []string
	for _, key := range keys {
		was, is := config.Value([]byte(before.YAML), key), config.Value([]byte(now.YAML), key)
		if now.Version == before.Version || len(keys) > 1 && was == is {
			out = append(out, fmt.Sprintf("%s is %s already", clean(key), clean(was)))
			continue
		}
		out = append(out, fmt.Sprintf("%s %s → %s", clean(key), clean(was), clean(is)))
	}
	return strings.Join(out, ", ")
}

// placeless is an error about a text of configuration, without the places in it.
type placeless struct{ error }

// place is how package config begins what it says of a fault: FILE:LINE, or FILE alone.
var place = regexp.MustCompile(`(^|[\n ])[^\s:]*:\d+: `)

func (p placeless) Error() string { return place.ReplaceAllString(p.error.Error(), "$1") }

func (p placeless) Unwrap() error { return p.error }

// editCommand applies what an editor makes of the configuration. What was refused stays in a file that the error
// names: the work of an admin is not thrown away. A text that is as it was is not sent at all.
func (a *app) editCommand() *cobra.Command {
	var yes bool
	c := &cobra.Command{
		Use: "edit MODULE", Short: "Edit the configuration of a module in $VISUAL or $EDITOR",
		Long: "Edit the configuration of a module in $VISUAL or $EDITOR, or vi. What is not good is not applied, and " +
			"stays in a file that is named.",
		Args: args("MODULE"), ValidArgsFunction: a.completeModules,
		RunE: a.call(func(ctx context.Context, c *client.Client, args []string) error {
			conf, err := configOf(ctx, c, args[0])
			if err != nil {
				return err
			}
			ctx = context.WithoutCancel(ctx) // ctrl-C in the editor is no end of this command
			path, text, err := a.edited(args[0], []byte(conf.YAML))
			if err != nil {
				return err
			}
			if bytes.Equal(text, []byte(conf.YAML)) {
				return errors.Join(os.Remove(path), a.say(conf, "nothing has changed"))
			}
			err = sameName(text, args[0])
			if err == nil {
				err = a.apply(ctx, c, conf.YAML, text, conf.Version, yes)
			}
			if err != nil {
				return fmt.Errorf("%w; your text is in %s: mend it and `duet config apply %s`", err, path, path)
			}
			return os.Remove(path)
		}),
	}
	editFlag(c, &yes)
	return c
}

// errOtherName: what a configuration is applied to is the module that it names, so a changed name would overwrite
// another module, or be refused as one that is not there.
var errOtherName = errors.New("the name of a module cannot be changed: release the VM, and protect it under its " +
	"new one")

// sameName refuses a text that names another module than the one that is edited. What else is wrong with it the node
// says.
func sameName(text []byte, module string) error {
	if m, err := config.Parse("", text); err == nil && m.Name != module {
		return errOtherName
	}
	return nil
}

// edited lets an admin edit text in a new file, and returns what it is then and the file that it is in, which is
// the caller's to remove if err is nil. After a failed editor the file is removed if it is as it was, else the
// error names it. The editor has this command's terminal, and ctrl-C is the editor's as long as it runs.
func (a *app) edited(module string, text []byte) (path string, now []byte, err error) {
	f, err := os.CreateTemp("", "duet-"+module+"-*.yaml")
	if err != nil {
		return "", nil, err
	}
	_, err = f.Write(text)
	if err := errors.Join(err, f.Close()); err != nil {
		return "", nil, err
	}
	// An editor may have arguments, as "code --wait": the shell takes them apart. The file is $0 of that shell, so
	// that no character of its name means anything to it.
	editor := or(or(a.env("VISUAL"), a.env("EDITOR")), "vi")
	// Both get ctrl-C from the terminal; main's handler gives the second one its default back, which would end this
	// command beside an editor that goes on.
	interrupts := make(chan os.Signal, 1)
	signal.Notify(interrupts, os.Interrupt)
	defer signal.Stop(interrupts)
	cmd := exec.Command("sh", "-c", editor+` "$0"`, f.Name())
	cmd.Stdin, cmd.Stdout, cmd.Stderr = a.in, a.out, a.err
	failed := cmd.Run()
	now, err = os.ReadFile(f.Name())
	switch {
	// Nothing was written: most often there is no such editor.
	case failed != nil && err == nil && bytes.Equal(now, text):
		err = fmt.Errorf("%s: %w; set EDITOR to your editor", editor, errors.Join(failed, os.Remove(f.Name())))
	case failed != nil:
		err = fmt.Errorf("%s: %w; your text is in %s", editor, failed, f.Name())
	}
	return f.Name(), now, err
}
