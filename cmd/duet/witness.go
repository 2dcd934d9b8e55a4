package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"duet/cluster"
	"duet/console/api"
	"duet/console/client"
)

// witnessAddr adds the port that witnesses have unless they were given another. An IPv6 address may stand with or
// without brackets; with a port it needs them.
func witnessAddr(text string) string {
	if _, port, err := net.SplitHostPort(text); err == nil && port != "" {
		return text
	}
	text = strings.TrimSuffix(text, ":")
	return net.JoinHostPort(strings.Trim(text, "[]"), strconv.Itoa(cluster.DefaultWitnessPort))
}

// witnessState is whether a witness votes and answers, as the node that is asked sees it. One that is silent is a
// warning, no failure: a connected pair goes on without it.
func (a *app) witnessState(wit api.WitnessStatus) cell {
	state := cell{"voter", green}
	if wit.Spare {
		state = cell{"spare", green}
	}
	if !wit.Alive {
		state = cell{state.text + ", silent", orange}
		if wit.Silent != nil {
			state.text += " for " + ageText(a.now().Sub(*wit.Silent))
		}
	}
	return state
}

// witnessCommand holds add, list and remove. For add and remove all nodes have to answer, else the daemon refuses:
// none may go on deciding by other means than its peer (cluster/DESIGN.md, the witness). When add returns, every
// node has stored the new voter. list shows what the node that is asked knows, without asking the witnesses.
func (a *app) witnessCommand() *cobra.Command {
	c := &cobra.Command{Use: "witness", Short: "Add or remove the third voter, which decides when the nodes lose each " +
		"other",
		Long: `Add or remove the witness: a third, tiny voter without data ("duetd witness" on a
third computer). With it a node that loses its peer goes on within a second if the
witness agrees, and never while the other one does. Without it arbitration "safe"
waits for the peer. More witnesses are spares: when the voter has been silent for 15 s
and both nodes reach each other and a spare, that one takes its place.`}
	a.group(c)
	var token string
	add := &cobra.Command{
		Use: "add ADDRESS --token T", Short: "Make the witness at ADDRESS (HOST or HOST:PORT) the third voter, or a spare " +
			"if there is one",
		Args: args("ADDRESS"), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: a.call(func(ctx context.Context, c *client.Client, args []string) error {
			if token == "" {
				return usageError{errors.New("give what \"duetd witness token\" said on the witness with --token")}
			}
			before, err := brief(ctx, c.Status)
			if err != nil {
				return err
			}
			st, err := c.AddWitness(ctx, api.WitnessRequest{Addr: witnessAddr(args[0]), Token: token})
			if err != nil {
				return err
			}
			what := "votes from now on, in place of the ping targets of arbitration \"available\""
			if st.Spare {
				what = "is a spare"
			}
			// One that answers stays as it is.
			if w, ok := witnessAt(before, st.Addr); ok && w.Alive && w.Spare == st.Spare {
				what = "votes already: nothing has changed, and the token was not used"
				if st.Spare {
					what = "is a spare already: nothing has changed, and the token was not used"
				}
			}
			return a.say(st, "The witness %s %s.", clean(st.Addr), what)
		}),
	}
	add.Flags().StringVar(&token, "token", "", "what \"duetd witness token\" said on the witness")
	c.AddCommand(add, &cobra.Command{
		Use: "list", Short: "List the witnesses, and which of them votes", Args: args(),
		RunE: a.call(func(ctx context.Context, c *client.Client, _ []string) error {
			st, err := brief(ctx, c.Status)
			if err != nil {
				return err
			}
			if len(st.Witnesses) == 0 && !a.json {
				return a.say(nil, "There is no witness: arbitration \"safe\" waits for the peer, \"available\" asks a ping target.")
			}
			return a.emit(append([]api.WitnessStatus{}, st.Witnesses...), func(w io.Writer) error {
				t := table{head: []string{"WITNESS", "STATE", ""}}
				for _, wit := range st.Witnesses {
					t.add(cell{text: wit.Addr}, a.witnessState(wit), cell{text: wit.Why})
				}
				return t.write(w, a.color())
			})
		}),
	}, a.removeWitnessCommand())
	return c
}

// witnessAt is the witness at an address; empty: the only one there is.
func witnessAt(st api.Status, addr string) (api.WitnessStatus, bool) {
	if addr == "" && len(st.Witnesses) == 1 {
		return st.Witnesses[0], true
	}
	for _, w := range st.Witnesses {
		if w.Addr == addr {
			return w, true
		}
	}
	return api.WitnessStatus{}, false
}

// mayDoWithout asks whether the only witness is to go, and says what decides then. Where another one is, the daemon
// has that take its place first, or refuses.
func (a *app) mayDoWithout(ctx context.Context, c *client.Client, addr string) error {
	st, err := brief(ctx, c.Status)
	if err != nil {
		return err
	}
	w, ok := witnessAt(st, addr)
	if !ok || len(st.Witnesses) > 1 {
		return nil
	}
	fences, err := brief(ctx, c.Fences)
	if err != nil {
		return err
	}
	var fenced, decided []string
	for _, f := range fences {
		if len(f.Levels) > 0 {
			fenced = append(fenced, f.Node)
		}
	}
	for _, m := range st.Modules {
		if m.Decides == "witness" {
			decided = append(decided, m.Name)
		}
	}
	facts := fmt.Sprintf("%s is the only witness: nothing votes in its place.", w.Addr)
	if len(decided) > 0 {
		facts += "\nIt decides for " + strings.Join(decided, ", ") + "."
	}
	facts += "\nWithout it, when the nodes lose each other, "
	if len(fenced) > 0 {
		facts += "the fence devices of " + strings.Join(fenced, " and ") + " decide; where there are none, "
	}
	facts += "modules with arbitration \"safe\" stand still until you decide, and\nthose with \"available\" go on where " +
		"a ping target answers, at the risk of two versions."
	return a.confirm(ctx, facts, fmt.Errorf("to remove the witness %s wants a confirmation: repeat with --yes", w.Addr),
		"Do without a witness?")
}

// removeWitnessCommand asks before the only one goes.
func (a *app) removeWitnessCommand() *cobra.Command {
	var yes bool
	c := &cobra.Command{
		Use: "remove [ADDRESS]", Short: "Do without a witness; a spare takes the voter's place first",
		Args: args("[ADDRESS]"), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: a.call(func(ctx context.Context, c *client.Client, args []string) error {
			addr := ""
			if len(args) > 0 {
				addr = witnessAddr(args[0])
			}
			if !yes {
				if err := a.mayDoWithout(ctx, c, addr); err != nil {
					return err
				}
			}
			// It is removed when this returns; what follows only says who votes now.
			if err := c.RemoveWitness(ctx, addr); err != nil {
				return err
			}
			st, err := brief(ctx, c.Status)
			if err != nil {
				return a.say(struct{}{}, "The witness is removed; `duet cluster witness list` shows who votes now (%s).",
					oneLine(err))
			}
			for _, w := range st.Witnesses {
				if !w.Spare {
					return a.say(struct{}{}, "The witness %s votes.", clean(w.Addr))
				}
			}
			return a.say(struct{}{}, "There is no witness any more: arbitration \"safe\" waits for the peer, \"available\" "+
				"asks a ping target.")
		}),
	}
	c.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return c
}
