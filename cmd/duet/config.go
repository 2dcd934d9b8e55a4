package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"duet/appmodules/config"
	"duet/console/api"
	"duet/console/client"
)

// maxConfig bounds what is read, so that the wrong file, or a terminal that never ends, is no memory. A file of
// just that length is refused: it may have been cut off.
const maxConfig = 1 << 20 // bytes of a file with configuration

// configCommand holds what is done with the YAML of a module. The daemon parses and judges it; this command copies
// it. show writes the YAML of what is stored, with --json an api.Config, which has the version beside it. check
// changes nothing and exits with 1 for a file that apply would refuse as such. apply makes the file the newest
// version and returns when that is durable on the node that is asked; the peer gets it in the background. A file
// that says what is stored already makes no new version. What an edit makes happen to a guest at once is asked for
// before (mayEdit).
func (a *app) configCommand() *cobra.Command {
	c := &cobra.Command{Use: "config", Short: "Show, check and change the configuration of modules"}
	a.group(c)
	c.AddCommand(&cobra.Command{
		Use: "show MODULE [KEY]", Aliases: []string{"get"},
		Short: "Print the configuration of a module as YAML, or one key of it, such as policy.restart.max",
		Args:  args("MODULE", "[KEY]"), ValidArgsFunction: a.completeModules,
		RunE: a.call(func(ctx context.Context, c *client.Client, args []string) error {
			conf, err := configOf(ctx, c, args[0])
			if err != nil {
				return err
			}
			text := conf.YAML
			if len(args) == 2 {
				if text = config.Value([]byte(text), args[1]); text == "" {
					return noKey(args[1])
				}
				text = strings.TrimRight(text, "\n") + "\n"
			}
			return a.emit(conf, func(w io.Writer) error {
				_, err := io.WriteString(w, text)
				return err
			})
		}),
	}, &cobra.Command{
		Use: "check FILE", Short: "Check a file (- for standard input) and change nothing", Args: args("FILE"),
		RunE: a.call(func(ctx context.Context, c *client.Client, args []string) error {
			b, err := a.readFile(args[0])
			if err != nil {
				return err
			}
			if err := c.Check(ctx, b); err != nil {
				return fmt.Errorf("%s: %w", fileText(args[0]), err)
			}
			return a.say(struct{}{}, "%s is good", fileText(args[0]))
		}),
	}, a.applyCommand(), a.setKeyCommand(), a.editCommand(), a.explainKeyCommand())
	return c
}

func (a *app) applyCommand() *cobra.Command {
	var yes bool
	c := &cobra.Command{
		Use: "apply FILE", Short: "Make a file (- for standard input) the configuration of the module it names",
		Args: args("FILE"),
		RunE: a.call(func(ctx context.Context, c *client.Client, args []string) error {
			b, err := a.readFile(args[0])
			if err != nil {
				return err
			}
			var was api.Config
			if m, faulty := config.Parse("", b); faulty == nil {
				was, err = configOf(ctx, c, m.Name)
			}
			if err == nil {
				err = a.apply(ctx, c, was.YAML, b, 0, yes)
			}
			if err != nil {
				return fmt.Errorf("%s: %w", fileText(args[0]), err)
			}
			return nil
		}),
	}
	editFlag(c, &yes)
	return c
}

// configOf is the stored configuration of a module.
func configOf(ctx context.Context, c *client.Client, module string) (api.Config, error) {
	return brief(ctx, func(ctx context.Context) (api.Config, error) { return c.Config(ctx, module) })
}

// fileText is the name of a file in an error.
func fileText(name string) string {
	if name == "-" {
		return "standard input"
	}
	return name
}

// readFile reads a file of configuration, or standard input for "-", whole: its errors say which it was.
func (a *app) readFile(name string) ([]byte, error) {
	r := a.in
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		r = f
	}
	b, err := io.ReadAll(io.LimitReader(r, maxConfig))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", fileText(name), err)
	}
	if len(b) == maxConfig {
		return nil, fmt.Errorf("read %s: longer than %s: is it a module's configuration?", fileText(name),
			bytesText(maxConfig))
	}
	return b, nil
}
