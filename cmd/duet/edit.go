package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"github.com/spf13/cobra"

	"duet/appmodules/config"
	"duet/console/client"
)

// apply makes text, an edit of version base, the configuration of the module that it names, and says what became of it.
// Base 0 is of whatever there is: what came in between is replaced.
func (a *app) apply(ctx context.Context, c *client.Client, text []byte, base uint64) error {
	conf, err := c.Apply(ctx, text, base)
	if err != nil {
		return err
	}
	return a.say(conf, "%s has configuration version %d", clean(conf.Module), conf.Version)
}

// setKeyCommand reads the configuration, exchanges the one key in its text and applies that: other keys are as the
// node had them when it was read. A key that is not known, or a value that is none, is exit 1.
func (a *app) setKeyCommand() *cobra.Command {
	return &cobra.Command{
		Use: "set MODULE KEY=VALUE", Short: "Change one key of a module's configuration, such as policy.restart.max=5",
		Args: args("MODULE", "KEY=VALUE"), ValidArgsFunction: a.completeModules,
		RunE: a.call(func(ctx context.Context, c *client.Client, args []string) error {
			key, value, ok := strings.Cut(args[1], "=")
			if !ok || value == "" {
				return usageError{fmt.Errorf("%q: write KEY=VALUE, such as policy.restart.max=5", args[1])}
			}
			conf, err := c.Config(ctx, args[0])
			if err != nil {
				return err
			}
			// It would be a change of the module that has that name.
			if key == "name" {
				return errOtherName
			}
			text, err := config.Set([]byte(conf.YAML), key, value)
			if err != nil {
				return err
			}
			return a.apply(ctx, c, text, conf.Version)
		}),
	}
}

// editCommand applies what an editor makes of the configuration. What was refused stays in a file that the error
// names: the work of an admin is not thrown away. A text that is as it was is not sent at all.
func (a *app) editCommand() *cobra.Command {
	return &cobra.Command{
		Use: "edit MODULE", Short: "Edit the configuration of a module in $VISUAL or $EDITOR",
		Long: "Edit the configuration of a module in $VISUAL or $EDITOR, or vi. What is not good is not applied, and " +
			"stays in a file that is named.",
		Args: args("MODULE"), ValidArgsFunction: a.completeModules,
		RunE: a.call(func(ctx context.Context, c *client.Client, args []string) error {
			conf, err := c.Config(ctx, args[0])
			if err != nil {
				return err
			}
			path, text, err := a.edited(ctx, args[0], []byte(conf.YAML))
			if err != nil {
				return err
			}
			if bytes.Equal(text, []byte(conf.YAML)) {
				return errors.Join(os.Remove(path), a.say(conf, "nothing has changed"))
			}
			err = sameName(text, args[0])
			if err == nil {
				err = a.apply(ctx, c, text, conf.Version)
			}
			if err != nil {
				return fmt.Errorf("%w; your text is in %s: mend it and `duet config apply %s`", err, path, path)
			}
			return os.Remove(path)
		}),
	}
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
// error names it. The editor has this command's terminal; the end of ctx kills it.
func (a *app) edited(ctx context.Context, module string, text []byte) (path string, now []byte, err error) {
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
	cmd := exec.CommandContext(ctx, "sh", "-c", editor+` "$0"`, f.Name())
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
