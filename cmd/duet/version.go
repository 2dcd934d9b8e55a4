package main

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"time"

	"github.com/spf13/cobra"

	"duet/console/client"
)

// versionCommand tells both versions, and why there is only one: a daemon that is away, or does not answer within 2
// s, is no failure, exit 0, with the reason in "silent". "duet --version" asks nobody.
func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the versions of duet and of the duetd it speaks to", Args: args(),
		RunE: a.call(func(ctx context.Context, c *client.Client, _ []string) error {
			ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
			defer cancel()
			out := struct {
				Duet   string `json:"duet"`
				Go     string `json:"go"`
				Duetd  string `json:"duetd,omitempty"`
				Node   string `json:"node,omitempty"`
				Silent string `json:"silent,omitempty"` // why duetd said nothing; then duetd and node are missing
			}{Duet: a.version, Go: runtime.Version() + " " + runtime.GOOS + "/" + runtime.GOARCH}
			st, err := c.Status(ctx)
			if err != nil {
				out.Silent = oneLine(err)
			}
			out.Duetd, out.Node = st.Version, st.Self
			return a.emit(out, func(w io.Writer) error {
				fmt.Fprintf(w, "duet %s (%s)\n", out.Duet, out.Go)
				if err != nil { // no failure: the question was answered
					_, err = fmt.Fprintf(w, "%s\n", out.Silent)
					return err
				}
				_, err := fmt.Fprintf(w, "duetd %s on %s\n", clean(out.Duetd), clean(out.Node))
				return err
			})
		}),
	}
}
