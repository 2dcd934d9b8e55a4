package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
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
	exitOK    = 0 // also of help, and of a --watch or --follow that ctrl-C ended
	exitError = 1 // the daemon refused, could not be asked, or what was ordered came to nothing
	exitUsage = 2 // not one request was sent
)

// Setup makes this node part of a cluster before its daemon runs; setup.OnDisk is the one. None of it may run
// beside the daemon, and it does not look whether that runs: mayLeave does.
type Setup interface {
	// Free fails with pki.ErrExists, and the ways on, if dir is that of a member.
	Free(dir string) error
	// Init and Join fail with pki.ErrExists on a member. The configuration that they return holds secret keys.
	Init(ctx context.Context, r setup.InitRequest) (cluster.Config, error)
	Join(ctx context.Context, r setup.JoinRequest) (cluster.Config, error)
	// Leave ends its membership, Rejoin begins another one under the same name; what it had is kept in a folder.
	Leave(dir string, now time.Time) (aside string, err error)
	Rejoin(ctx context.Context, r setup.JoinRequest, now time.Time) (c cluster.Config, aside string, err error)
}

// app is one run of the command: what it reads and writes, and the flags of all commands.
type app struct {
	in            io.Reader // standard input: a yes, "-" for a file or a secret, and the editor's terminal
	out, err      io.Writer
	env           func(string) string // of the environment; man.go has an empty one
	inTTY, outTTY bool                // whether somebody can answer; whether to draw in place and in colour
	width         func() int          // of the terminal, 0 if unknown
	now           func() time.Time    // for what is printed, and for how long is waited in all; tests set it
	tick          time.Duration       // between two looks at something that goes on
	setup         Setup
	local         Local // this computer, where its daemon is away
	version       string

	connect client.Options // the flags --connect, --token-file and --ca-file, or their variables
	json    bool
	began   bool // a command's own work began: errors before that are of usage

	complaints []api.Finding // with --json: problems that standard error is told of at the end (complain)
}

// exit is an error that only carries an exit code and is not printed: why was said, or is what was asked for. It
// wins over errors that are joined with it; exit(0) ends well, as "status -q" of a module in STOP.
type exit int

func (e exit) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// interrupted is an error of something that goes on without whoever followed it: ctrl-C, or its time was over. Exit
// 1, and 499 in JSON, so that a script tells it from a failure.
type interrupted struct{ error }

// unconfirmed is an error of something that wants a yes, where nobody can give it: 428 in JSON, as if the daemon
// had said so, also where it is this command that asks. Nothing was changed.
type unconfirmed struct{ error }

// usageError is returned when the command line is wrong in a way cobra does not know: exit 2. It is returned before
// anything was asked or changed.
type usageError struct{ error }

// run runs one command line and returns the exit code; it never ends the process. A command returns its error and
// prints none: here it becomes one line, or one document. What cobra refuses has no type of its own; it is known by
// that no command's work had begun. context.Canceled is ctrl-C or SIGTERM, whatever was being waited for: nothing
// else cancels ctx.
func (a *app) run(ctx context.Context, args []string) int {
	root := a.root()
	root.SetArgs(args)
	root.SetIn(a.in)
	root.SetOut(a.out)
	root.SetErr(a.err)
	c, err := root.ExecuteContextC(ctx)
	a.json = a.json || err != nil && asksJSON(args) // what is wrong in a line may stand before it
	defer a.tellComplaints()
	var code exit
	var usage usageError
	switch {
	case err == nil:
		return exitOK
	// Before all else: a code may be joined with the error of a write.
	case errors.As(err, &code):
		return int(code)
	case errors.As(err, &usage), !a.began:
		text := badFlag(c, oneLine(err))
		a.fail(http.StatusBadRequest, fmt.Sprintf("%s (%s --help shows how)", text, c.CommandPath()))
		return exitUsage
	case errors.Is(err, context.Canceled):
		// Not interrupted{}: what was asked may have been done, or not.
		a.fail(statusInterrupted, "interrupted")
		return exitError
	}
	a.fail(statusOf(err), oneLine(err))
	return exitError
}

// invalidArgument is what pflag says of the value of a flag: the value, the flag, and what Go's library says.
var invalidArgument = regexp.MustCompile(`^invalid argument (".*") for "(?:-\w, )?--([\w-]+)" flag: (.*)$`)

// badFlag says of a value that a flag does not take what it takes; any other text stays as it is.
func badFlag(c *cobra.Command, text string) string {
	m := invalidArgument.FindStringSubmatch(text)
	if m == nil {
		return text
	}
	f := c.Flags().Lookup(m[2])
	if f == nil {
		return text
	}
	wanted, ok := map[string]string{
		"duration": "a duration such as 90s, 5m or 1h", "bool": "true or false",
		"int": "a whole number", "int64": "a whole number", "uint": "a whole number", "uint64": "a whole number",
	}[f.Value.Type()]
	if !ok {
		return fmt.Sprintf("--%s %s: %s", m[2], m[1], m[3])
	}
	return fmt.Sprintf("--%s %s: %s is wanted", m[2], m[1], wanted)
}

// asksJSON: --json is among the flags of a command line. It does not know which flags take a value, so a value that
// is --json counts too; it only decides how a mistake is told.
func asksJSON(args []string) bool {
	if i := slices.Index(args, "--"); i >= 0 {
		args = args[:i]
	}
	return slices.Contains(args, "--json")
}

// statusInterrupted stands in JSON for ctrl-C; servers use it for a client that went away.
const statusInterrupted = 499

// statusOf is the HTTP status for an error, also of those that no server told: scripts get the same numbers from
// the command as from the API. Whatever else fails on this side, as a file that is not there, is 500.
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
		Title    string        `json:"title"`
		Status   int           `json:"status"`
		Detail   string        `json:"detail"`
		Problems []api.Finding `json:"problems,omitempty"` // that were found on the way
	}{title, status, text, a.complaints})
	a.complaints = nil
}

// tellComplaints writes what was found on the way of a command that did its work all the same, with --json.
func (a *app) tellComplaints() {
	if len(a.complaints) == 0 {
		return
	}
	e := json.NewEncoder(a.err)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	_ = e.Encode(struct { // stderr is gone: there is nobody to tell
		Problems []api.Finding `json:"problems"`
	}{a.complaints})
	a.complaints = nil
}

// oneLine folds the lines of an error, so that logs and scripts get one, and says in words what the system said.
func oneLine(err error) string {
	lines := strings.FieldsFunc(cluster.Plain(err), func(r rune) bool { return r == '\n' || r == '\r' })
	for i := range lines {
		lines[i] = strings.TrimSpace(lines[i])
	}
	return clean(strings.Join(lines, "; "))
}

// root is the tree of all commands. It is made anew for each run, with the values of the flags in a: the
// environment is read here, and an explicit flag wins over it.
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
	root.AddCommand(a.statusCommand(), a.logCommand(), a.clusterCommand(), a.vmCommand(), a.moduleCommand(),
		a.volumeCommand(), a.configCommand(), a.taskCommand(), a.versionCommand(), a.doctorCommand(), a.supportCommand(),
		a.explainCommand(), a.metricsCommand())
	root.AddCommand(a.actionCommands()...)
	return root
}

// group makes c a command that only holds others. Alone it is a wrong command line (exit 2), as is a name that it
// does not hold; only "duet" alone shows help and ends well.
func (a *app) group(c *cobra.Command) {
	c.Args = cobra.ArbitraryArgs
	c.RunE = func(c *cobra.Command, args []string) error {
		// Of "duet" alone help is what was wanted; of a group it would hide the mistake in a script.
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
		if meant := api.Meant(args[0], names); meant != "" {
			return usageError{fmt.Errorf("there is no %q%s", args[0], meant)}
		}
		return usageError{fmt.Errorf("there is no %q: say one of %s", args[0], strings.Join(names, ", "))}
	}
}

// do wraps the work of a command, so that what fails before it is known to be of usage. f gets the ctx that a
// signal ends.
func (a *app) do(f func(ctx context.Context, args []string) error) func(*cobra.Command, []string) error {
	return func(c *cobra.Command, args []string) error {
		a.began = true
		return f(c.Context(), args)
	}
}

// call is do for work that asks a node. Nothing is connected before f asks, so f may still find the command line
// wrong; the connections are closed when it returns. A file of a token or CA that cannot be read is exit 1.
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

// lookTime bounds a call that only looks and that a daemon which works answers at once, or nearly so: it asks nobody,
// or its peer for no longer than two seconds. Whoever looks wants to know within it that a daemon hangs.
const lookTime = 5 * time.Second

// brief makes one call that only looks; one that takes longer than lookTime is client.ErrAway.
func brief[T any](ctx context.Context, call func(context.Context) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	return call(ctx)
}

// answers comes before a call whose answer takes the daemon long: one that hangs is told at once.
func (a *app) answers(ctx context.Context, c *client.Client) error {
	_, err := brief(ctx, c.Status)
	return err
}

// args wants exactly the named arguments; names in brackets may be left out, from the last on.
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

// color reports whether to colour what goes to out: on a terminal, unless NO_COLOR is set to something
// (no-color.org).
func (a *app) color() bool { return a.outTTY && a.env("NO_COLOR") == "" }

// emit writes v as JSON or, without --json, what human writes. human may be nil where --json is known to be given.
// Its error is that of standard output: a closed pipe is exit 1.
func (a *app) emit(v any, human func(io.Writer) error) error {
	if !a.json {
		return human(a.out)
	}
	e := json.NewEncoder(a.out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// say writes one line unless --json asks for v. What comes from elsewhere in args the caller has cleaned.
func (a *app) say(v any, format string, args ...any) error {
	return a.emit(v, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, format+"\n", args...)
		return err
	})
}

// or is a, or b where a is empty: as a shell's ${a:-b}.
func or(a, b string) string {
	if a != "" {
		return a
	}
	return b
}
