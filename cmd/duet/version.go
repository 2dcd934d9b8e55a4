package main

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"time"

	"github.com/spf13/cobra"

	"duet/console/api"
	"duet/console/client"
)

// nodeVersion is that of the daemon of one node, as the one that is asked last heard it.
type nodeVersion struct {
	Node  string `json:"node"`
	Duetd string `json:"duetd,omitempty"` // missing: not known
	Alive bool   `json:"alive"`
}

// text is a line of it.
func (v nodeVersion) text() string {
	switch {
	case v.Duetd == "" && v.Alive:
		return "duetd on " + v.Node + ": not known yet, or a release that does not tell it"
	case v.Duetd == "":
		return "duetd on " + v.Node + ": not known, it is down"
	case !v.Alive:
		return "duetd " + v.Duetd + " on " + v.Node + ", when it was last heard"
	}
	return "duetd " + v.Duetd + " on " + v.Node
}

// versions are those of the nodes; of a daemon that tells only its own, that one.
func versions(st api.Status) []nodeVersion {
	var out []nodeVersion
	for _, n := range st.Nodes {
		v := nodeVersion{n.Name, n.Version, n.Alive}
		if n.Name == st.Self {
			v.Duetd = st.Version
		}
		out = append(out, v)
	}
	return out
}

// versionCommand tells the versions of this program and of the daemons, and why there is only one: a daemon that is
// away, or does not answer within 2 s, is no failure, exit 0, with the reason in "silent". "duet --version" asks
// nobody.
func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the versions of duet and of the duetd of each node", Args: args(),
		RunE: a.call(func(ctx context.Context, c *client.Client, _ []string) error {
			ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
			defer cancel()
			out := struct {
				Duet   string        `json:"duet"`
				Go     string        `json:"go"`
				Duetd  string        `json:"duetd,omitempty"` // that was asked
				Node   string        `json:"node,omitempty"`
				Nodes  []nodeVersion `json:"nodes,omitempty"`
				Silent string        `json:"silent,omitempty"` // why duetd said nothing; then the three above are missing
			}{Duet: a.version, Go: runtime.Version() + " " + runtime.GOOS + "/" + runtime.GOARCH}
			st, err := c.Status(ctx)
			if err != nil {
				out.Silent = oneLine(err)
			}
			out.Duetd, out.Node, out.Nodes = st.Version, st.Self, versions(st)
			return a.emit(out, func(w io.Writer) error {
				fmt.Fprintf(w, "duet %s (%s)\n", out.Duet, out.Go)
				if err != nil { // no failure: the question was answered
					_, err = fmt.Fprintf(w, "%s\n", out.Silent)
					return err
				}
				for _, v := range out.Nodes {
					if _, err := fmt.Fprintln(w, clean(v.text())); err != nil {
						return err
					}
				}
				return nil
			})
		}),
	}
}
