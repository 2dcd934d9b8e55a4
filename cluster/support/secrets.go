package support

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"duet/cluster"
	"duet/cluster/fence"
	"duet/cluster/pki"
)

const (
	hidden    = "***"
	minSecret = 4 // characters; a shorter one would turn every text into stars and protects nothing
)

// tokens are what admins type to join a cluster or to add a witness. Their prefixes are those of packages pki and
// witness. Used ones are hidden too: it does not show whether they are.
var tokens = regexp.MustCompile(`\b(duetw?1)\.[A-Za-z0-9._~+/=-]+`)

// keys are private keys in PEM. One whose end is cut off is hidden up to the end of the text.
var keys = regexp.MustCompile(`(?s)-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|$)`)

// hide replaces all secrets that are known, and what looks like one. Secrets come longest first: a shorter one
// inside would be replaced alone, and leave the rest readable.
func hide(text []byte, secrets []string) []byte {
	for _, s := range secrets {
		if len(s) >= minSecret {
			text = bytes.ReplaceAll(text, []byte(s), []byte(hidden))
		}
	}
	text = keys.ReplaceAll(text, []byte(hidden))
	return tokens.ReplaceAll(text, []byte("${1}."+hidden))
}

// secretsOf lists the secrets that a node keeps in its directory and in its configuration. Each is there as it is
// and as JSON writes it; of a key in PEM, each line by itself. Fence devices that cannot be read are skipped: nobody
// can say what of them is secret, and shownConfig leaves them out as a whole.
func secretsOf(dir string, c cluster.Config) []string {
	var out []string
	for _, k := range c.GossipKeys {
		out = append(out, base64.StdEncoding.EncodeToString(k))
	}
	for _, w := range c.Voters.All() {
		out = append(out, w.ID)
	}
	for _, raw := range c.Fence {
		if levels, err := fence.Decode(raw); err == nil {
			out = append(out, levels.Secrets()...)
		}
	}
	files, _ := filepath.Glob(filepath.Join(dir, pki.Folder, "*.key")) // the pattern is well formed
	for _, f := range append(files, filepath.Join(dir, "console.token")) {
		b, err := os.ReadFile(f)
		if err != nil {
			continue // what cannot be read gets nowhere
		}
		for line := range strings.Lines(string(b)) {
			if line = strings.TrimSpace(line); !strings.HasPrefix(line, "-----") {
				out = append(out, line)
			}
		}
	}
	for _, s := range out {
		out = append(out, quoted(s)...)
	}
	// The longest first: one may be part of another.
	slices.SortFunc(out, func(a, b string) int { return cmp.Or(len(b)-len(a), cmp.Compare(a, b)) })
	return slices.Compact(out)
}

// quoted is a text as it stands in JSON, with and without care for HTML.
func quoted(s string) []string {
	var out []string
	for _, html := range []bool{true, false} {
		var b bytes.Buffer
		e := json.NewEncoder(&b)
		e.SetEscapeHTML(html)
		if e.Encode(s) == nil { // a text can always be written
			out = append(out, strings.TrimSuffix(strings.TrimPrefix(strings.TrimSpace(b.String()), `"`), `"`))
		}
	}
	return out
}

// shownConfig is a node's cluster configuration without its secrets. c is a copy: slices and maps that it shares
// with the configuration in use are replaced, not written to.
func shownConfig(c cluster.Config) ([]byte, error) {
	c.GossipKeys = nil
	c.Voters.Active, c.Voters.Spares = nameless(c.Voters.Active), nameless(c.Voters.Spares)
	devices := make(map[cluster.NodeID]json.RawMessage, len(c.Fence))
	for node, raw := range c.Fence {
		levels, err := fence.Decode(raw)
		if err != nil {
			devices[node] = json.RawMessage(`"` + hidden + `"`) // it cannot be told what of it is secret
			continue
		}
		if devices[node], err = json.Marshal(levels); err != nil { // hides them
			return nil, fmt.Errorf("write fence devices: %w", err)
		}
	}
	c.Fence = devices
	return json.MarshalIndent(c, "", "  ")
}

// nameless hides the identities of registrations.
func nameless(ws []cluster.Witness) []cluster.Witness {
	out := slices.Clone(ws)
	for i := range out {
		out[i].ID = hidden
	}
	return out
}
