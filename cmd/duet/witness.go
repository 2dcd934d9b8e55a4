package main

import (
	"context"
	"errors"
	"strings"

	"github.com/spf13/cobra"

	"duet/console/api"
	"duet/console/client"
)

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
		Use: "add ADDRESS --token T", Short: "Make the witness at ADDRESS (host:port) the third voter, or a spare if there " +
			"is one",
		Args: args("ADDRESS"), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: a.call(func(ctx context.Context, c *client.Client, args []string) error {
			if token == "" {
				return usageError{errors.New("give what \"duetd witness token\" said on the witness with --token")}
			}
			st, err := c.AddWitness(ctx, api.WitnessRequest{Addr: args[0], Token: token})
			if err != nil {
				return err
			}
			what := "votes from now on"
			if st.Spare {
				what = "is a spare"
			}
			return a.say(st, "The witness %s %s.", clean(st.Addr), what)
		}),
	}
	add.Flags().StringVar(&token, "token", "", "what \"duetd witness token\" said on the witness")
	c.AddCommand(add, &cobra.Command{
		Use: "remove [ADDRESS]", Short: "Do without a witness; a spare takes the voter's place first",
		Args: args("[ADDRESS]"), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: a.call(func(ctx context.Context, c *client.Client, args []string) error {
			if err := c.RemoveWitness(ctx, strings.Join(args, "")); err != nil {
				return err
			}
			st, err := c.Status(ctx)
			if err != nil {
				return err
			}
			for _, w := range st.Witnesses {
				if !w.Spare {
					return a.say(struct{}{}, "The witness %s votes.", clean(w.Addr))
				}
			}
			return a.say(struct{}{}, "There is no witness any more: arbitration \"safe\" waits for the peer, \"available\" "+
				"asks a ping target.")
		}),
	})
	return c
}
