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

// setKeyCommand reads the configuration, exchanges the one key in its text and applies that: other keys are as the node
// had them when it was read. A key that is not known, or a value that is none, is exit 1. Its errors have no lines:
// nobody sees the text that they count in.
func (a *app) setKeyCommand() *cobra.Command {
	return &cobra.Command{
		Use: "set MODULE KEY=VALUE", Short: "Change one key of a module's configuration, such as policy.restart.max=5",
		Args: func(c *cobra.Command, got []string) error {
			if len(got) == 3 && !strings.Contains(got[1], "=") {
				return fmt.Errorf("write %s=%s in one word: usage: %s", got[1], got[2], c.UseLine())
			}
			return args("MODULE", "KEY=VALUE")(c, got)
		},
		ValidArgsFunction: a.completeModules,
		RunE: a.call(func(ctx context.Context, c *client.Client, args []string) error {
			key, value, ok := strings.Cut(args[1], "=")
			if !ok || value == "" {
				return usageError{fmt.Errorf("%q: write KEY=VALUE, such as policy.restart.max=5", args[1])}
			}
			conf, err := configOf(ctx, c, args[0])
			if err != nil {
				return err
			}
			// It would be a change of the module that has that name.
			if key == "name" {
				return errOtherName
			}
			text, err := config.Set([]byte(conf.YAML), key, value)
			if errors.Is(err, config.ErrNoKey) {
				return noKey(key)
			}
			if err != nil {
				return err
			}
			now, err := c.Apply(ctx, text, conf.Version)
			if err != nil {
				return placeless{err}
			}
			was, is := config.Value([]byte(conf.YAML), key), config.Value([]byte(now.YAML), key)
			if now.Version == conf.Version {
				return a.say(now, "%s: %s is %s already, version %d", clean(now.Module), clean(key), clean(was), now.Version)
			}
			return a.say(now, "%s: %s %s → %s, version %d", clean(now.Module), clean(key), clean(was), clean(is), now.Version)
		}),
	}
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
	return &cobra.Command{
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
