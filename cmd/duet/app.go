package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"duet/cluster"
	"duet/cmd/duet/setup"
	"duet/console/api"
	"duet/console/client"
)

// Exit codes, beside those of "status -q".
const (
	exitOK    = 0
	exitError = 1
	exitUsage = 2
)

// Setup makes this node part of a cluster before its daemon runs.
type Setup interface {
	Init(ctx context.Context, r setup.InitRequest) (cluster.Config, error)
	Join(ctx context.Context, r setup.JoinRequest) (cluster.Config, error)
	// Leave ends its membership, Rejoin begins another one under the same name; what it had is kept in a folder.
	Leave(dir string, now time.Time) (aside string, err error)
	Rejoin(ctx context.Context, r setup.JoinRequest, now time.Time) (c cluster.Config, aside string, err error)
}

// app is one run of the command: what it reads and writes, and the flags of all commands.
type app struct {
	in            io.Reader
	out, err      io.Writer
	env           func(string) string
	inTTY, outTTY bool
	width         func() int // of the terminal, 0 if unknown
	now           func() time.Time
	tick          time.Duration // between two looks at something that goes on
	setup         Setup
	local         Local
	version       string

	connect client.Options
	json    bool
	began   bool // a command's own work began: errors before that are of usage
}

// exit is an error that only carries an exit code and is not printed.
type exit int

func (e exit) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// interrupted is an error of something that goes on without whoever followed it: ctrl-C, or its time was over.
type interrupted struct{ error }

// unconfirmed is an error of something that wants a yes, where nobody can give it.
type unconfirmed struct{ error }

// usageError is returned when the command line is wrong in a way cobra does not know.
type usageError struct{ error }

// run runs one command line and returns the exit code.
func (a *app) run(ctx context.Context, args []string) int {
	root := a.root()
	root.SetArgs(args)
	root.SetIn(a.in)
	root.SetOut(a.out)
	root.SetErr(a.err)
	c, err := root.ExecuteContextC(ctx)
	a.json = a.json || err != nil && asksJSON(args) // what is wrong in a line may stand before it
	var code exit
	var usage usageError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &code):
		return int(code)
	case errors.As(err, &usage), !a.began:
		a.fail(http.StatusBadRequest, fmt.Sprintf("%s (%s --help shows how)", oneLine(err), c.CommandPath()))
		return exitUsage
	case errors.Is(err, context.Canceled):
		a.fail(statusInterrupted, "interrupted")
		return exitError
	}
	a.fail(statusOf(err), oneLine(err))
	return exitError
}

// asksJSON: --json is among the flags of a command line.
func asksJSON(args []string) bool {
	if i := slices.Index(args, "--"); i >= 0 {
		args = args[:i]
	}
	return slices.Contains(args, "--json")
}

// statusInterrupted stands in JSON for ctrl-C; servers use it for a client that went away.
const statusInterrupted = 499

// statusOf is the HTTP status for an error, also of those that no server told.
func statusOf(err error) int {
	var cut interrupted
	var open unconfirmed
	switch {
	case errors.As(err, &open):
		return api.StatusOf(api.ErrConfirm)
	case errors.As(err, &cut):
		return statusInterrupted
	case errors.Is(err, client.ErrAway):
		return http.StatusServiceUnavailable
	case errors.Is(err, client.ErrDenied):
		return http.StatusForbidden
	}
	return api.StatusOf(err)
}

// fail writes why a command failed: a line, or with --json a problem document (RFC 9457), as the API gives it.
func (a *app) fail(status int, text string) {
	if !a.json {
		fmt.Fprintf(a.err, "duet: %s\n", text)
		return
	}
	title := http.StatusText(status)
	if title == "" {
		title = "Interrupted"
	}
	e := json.NewEncoder(a.err)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	_ = e.Encode(struct { // stderr is gone: there is nobody to tell
		Title  string `json:"title"`
		Status int    `json:"status"`
		Detail string `json:"detail"`
	}{title, status, text})
}

// oneLine folds the lines of an error, so that logs and scripts get one.
func oneLine(err error) string {
	lines := strings.FieldsFunc(err.Error(), func(r rune) bool { return r == '\n' || r == '\r' })
	for i := range lines {
		lines[i] = strings.TrimSpace(lines[i])
	}
	return clean(strings.Join(lines, "; "))
}

// root is the tree of all commands.
func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "duet",
		Short: "Keep virtual machines running on two nodes",
		Long: `Keep virtual machines running on two nodes.

Exit codes: 0 done, 1 failed, 2 wrong command line; "duet status" has its own. With --json
an error is a JSON document too (RFC 9457), on standard error.
Environment: DUET_CONNECT, DUET_TOKEN_FILE and DUET_CA_FILE stand for the flags; NO_COLOR.`,
		SilenceErrors: true, SilenceUsage: true, Version: a.version,
	}
	root.SetVersionTemplate("duet {{.Version}}\n")
	root.Flags().Bool("version", false, "print the version of duet")
	a.group(root)
	f := root.PersistentFlags()
	f.StringVar(&a.connect.Connect, "connect", or(a.env("DUET_CONNECT"), client.DefaultConnect),
		"the node to ask: unix:///path or https://node:port")
	f.StringVar(&a.connect.TokenFile, "token-file", a.env("DUET_TOKEN_FILE"), "file with the node's token, for https")
	f.StringVar(&a.connect.CAFile, "ca-file", a.env("DUET_CA_FILE"), "file with the cluster's CA certificate, for https")
	f.BoolVar(&a.json, "json", false, "write JSON, as the API gives it")
	root.AddCommand(a.statusCommand(), a.logCommand(), a.clusterCommand(), a.vmCommand(), a.volumeCommand(),
		a.configCommand(), a.taskCommand(), a.versionCommand(), a.doctorCommand(), a.supportCommand(),
		a.explainCommand(), a.metricsCommand())
	root.AddCommand(a.actionCommands()...)
	return root
}

// group makes c a command that only holds others.
func (a *app) group(c *cobra.Command) {
	c.Args = cobra.ArbitraryArgs
	c.RunE = func(c *cobra.Command, args []string) error {
		if len(args) == 0 && c.Parent() == nil {
			return c.Help()
		}
		var names []string
		for _, sub := range c.Commands() {
			if sub.IsAvailableCommand() {
				names = append(names, sub.Name())
			}
		}
		if len(args) == 0 {
			return usageError{fmt.Errorf("say one of %s", strings.Join(names, ", "))}
		}
		return usageError{fmt.Errorf("there is no %q: say one of %s", args[0], strings.Join(names, ", "))}
	}
}

// do wraps the work of a command, so that what fails before it is known to be of usage.
func (a *app) do(f func(ctx context.Context, args []string) error) func(*cobra.Command, []string) error {
	return func(c *cobra.Command, args []string) error {
		a.began = true
		return f(c.Context(), args)
	}
}

// call is do for work that asks a node.
func (a *app) call(f func(ctx context.Context, c *client.Client, args []string) error) func(*cobra.Command,
	[]string) error {
	return a.do(func(ctx context.Context, args []string) error {
		c, err := client.New(a.connect)
		if err != nil {
			return err
		}
		defer c.Close()
		return f(ctx, c, args)
	})
}

// args wants exactly the named arguments; names in brackets may be left out.
func args(names ...string) cobra.PositionalArgs {
	return func(c *cobra.Command, got []string) error {
		if len(got) > len(names) {
			return fmt.Errorf("%q is too much: usage: %s", got[len(names)], c.UseLine())
		}
		for _, missing := range names[len(got):] {
			if !strings.HasPrefix(missing, "[") {
				return fmt.Errorf("say which %s: usage: %s", missing, c.UseLine())
			}
		}
		return nil
	}
}

// color reports whether to colour what goes to out.
func (a *app) color() bool { return a.outTTY && a.env("NO_COLOR") == "" }

// emit writes v as JSON or, without --json, what human writes.
func (a *app) emit(v any, human func(io.Writer) error) error {
	if !a.json {
		return human(a.out)
	}
	e := json.NewEncoder(a.out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// say writes one line unless --json asks for v.
func (a *app) say(v any, format string, args ...any) error {
	return a.emit(v, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, format+"\n", args...)
		return err
	})
}

func or(a, b string) string {
	if a != "" {
		return a
	}
	return b
}
