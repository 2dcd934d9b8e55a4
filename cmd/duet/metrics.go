package main

import (
	"context"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/spf13/cobra"

	"duet/cmd/duet/setup"
	"duet/console/api"
	"duet/console/client"
)

// metricsCommand prints what Prometheus needs to scrape every node itself: the figures of a node are its own, and a
// node that is down must not take those of its peer along. Nothing is installed or copied.
func (a *app) metricsCommand() *cobra.Command {
	c := &cobra.Command{Use: "metrics", Short: "Help to bring the figures into Prometheus"}
	a.group(c)
	c.AddCommand(&cobra.Command{
		Use: "config", Short: "Print the scrape jobs for Prometheus, and what to copy to it", Args: args(),
		RunE: a.call(func(ctx context.Context, c *client.Client, _ []string) error {
			st, err := brief(ctx, c.Status)
			if err != nil {
				return err
			}
			return a.emit(scrapeJobs(st), func(w io.Writer) error { return writeScrape(w, st) })
		}),
	})
	return c
}

// scrapeJob is one job of Prometheus for each node, since each has a token of its own. With --json there is a list
// of them; the paths are on the computer of Prometheus.
type scrapeJob struct {
	Job    string `json:"job_name"`
	Node   string `json:"node"`
	Target string `json:"target"`
	Token  string `json:"credentials_file"`
	CA     string `json:"ca_file"`
}

const prometheusDir = "/etc/prometheus/duet" // on the computer of Prometheus, where an admin copies the files to

// scrapeJobs are those of the nodes whose address is known. It is the first address of the node with the usual
// port; a node whose daemon serves elsewhere (duetd --listen) has to be written by hand.
func scrapeJobs(st api.Status) []scrapeJob {
	var out []scrapeJob
	for _, n := range st.Nodes {
		if n.API != "" {
			out = append(out, scrapeJob{"duet-" + n.Name, n.Name, n.API, prometheusDir + "/" + n.Name + ".token",
				prometheusDir + "/" + path.Base(setup.CAFile)})
		}
	}
	return out
}

// writeScrape writes it as YAML, to be pasted into prometheus.yml.
func writeScrape(w io.Writer, st api.Status) error {
	jobs := scrapeJobs(st)
	var b strings.Builder
	fmt.Fprintf(&b, "# On the host of Prometheus, in %s: from any node %s/%s as %s,\n",
		prometheusDir, setup.DefaultDir, setup.CAFile, path.Base(setup.CAFile))
	fmt.Fprintf(&b, "# and from each node its %s/%s:", setup.DefaultDir, setup.TokenFile)
	for _, j := range jobs {
		b.WriteString(" " + j.Node + ".token")
	}
	b.WriteString("\n# A token is a key to the whole API of its node: who has it may also stop, move and release VMs.\n" +
		"# Let only Prometheus read these files (mode 0400). A node that rejoins keeps its token; one that left and\n" +
		"# joined, or a new computer under the name, has a new one: copy that again.\n")
	if len(jobs) > 0 {
		fmt.Fprintf(&b, "# By hand, on node %s: curl --cacert %s/%s -H \"Authorization: Bearer $(cat %s/%s)\" \\\n"+
			"#   https://%s/metrics\n", jobs[0].Node, setup.DefaultDir, setup.CAFile, setup.DefaultDir, setup.TokenFile,
			jobs[0].Target)
	}
	b.WriteString("scrape_configs:\n")
	// Each job has the file of its node's token: a token opens the API of that node only.
	for _, j := range jobs {
		fmt.Fprintf(&b, "  - job_name: %s\n    scheme: https\n    authorization: {credentials_file: %s}\n"+
			"    tls_config: {ca_file: %s}\n    static_configs:\n      - targets: [%q]\n"+
			"        labels: {cluster: %q, node: %q}\n",
			j.Job, j.Token, j.CA, j.Target, st.Cluster, j.Node)
	}
	_, err := io.WriteString(w, b.String())
	return err
}
