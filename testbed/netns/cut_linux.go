package netns

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"os/exec"
	"regexp"
	"slices"
	"strings"
)

// Cut says which frames the switch drops: those in Network that go From → To. An empty name means any. It is one
// direction only; Between makes both. Frames vanish without a trace, as on a broken wire. It is a key: two that
// are equal are one cut, and Restore needs the same value.
type Cut struct {
	Network string
	From    string // a node or Gateway
	To      string // a node or Gateway
	TCPPort int    // if not 0, only TCP segments from or to this port
	Percent int    // if not 0, only so many of a hundred frames, at random
}

// Between returns the cut of both directions between two ends in a network ("" = in all).
func Between(a, b, network string) []Cut {
	return []Cut{{Network: network, From: a, To: b}, {Network: network, From: b, To: a}}
}

// Around returns the cut of everything a node sends and receives in a network ("" = in all). It cuts the gateway
// too, but nothing within the node.
func Around(node, network string) []Cut { return Between(node, "", network) }

// Cut adds cuts. Traffic of connections that exist is dropped too. When it returns nil all of them work; on an
// error none of them was added. Both ends see silence and no error; what TCP has under way is sent again after
// Restore.
func (l *LAN) Cut(cuts ...Cut) error {
	return l.change(cuts, func(all map[Cut]bool, c Cut) { all[c] = true })
}

// CutAll isolates a node in every network, also from the gateway.
func (l *LAN) CutAll(node string) error { return l.Cut(Around(node, "")...) }

// Restore takes back exactly these cuts; those that are not there are ignored. A narrower cut does not take a
// wider one back: Around is not undone by Between.
func (l *LAN) Restore(cuts ...Cut) error {
	return l.change(cuts, func(all map[Cut]bool, c Cut) { delete(all, c) })
}

// RestoreAll takes all cuts back. Links without carrier stay so. Slow links stay slow as well.
func (l *LAN) RestoreAll() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.replace(map[Cut]bool{})
}

// change applies each to the cuts and tells the kernel.
func (l *LAN) change(cuts []Cut, each func(all map[Cut]bool, c Cut)) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := maps.Clone(l.cuts)
	for _, c := range cuts {
		if err := l.cfg.known(c); err != nil {
			return err
		}
		each(all, c)
	}
	return l.replace(all)
}

// replace makes cuts the ones in force. On an error the old ones stay. The caller holds mu, so the rules in the
// kernel are always those of cuts.
func (l *LAN) replace(cuts map[Cut]bool) error {
	if err := l.apply(slices.Collect(maps.Keys(cuts))); err != nil {
		return err
	}
	l.cuts = cuts
	return nil
}

// apply replaces the rules of the switch by one transaction, so no cut flickers while another is added. The
// table is made, deleted and made in one script: the first of these keeps the deletion from failing where there
// is none.
func (l *LAN) apply(cuts []Cut) error {
	rules := l.cfg.rules(cuts)
	err := l.Do(Switch, func() error {
		cmd := exec.Command("nft", "-f", "-")
		cmd.Stdin = strings.NewReader(rules)
		_, err := finish(cmd)
		return err
	})
	if err != nil {
		return fmt.Errorf("set cuts: %w", err)
	}
	return nil
}

// rules compiles cuts into an nft script: frames between nodes pass the bridge's forward hook, frames to the
// gateway its input hook, frames from the gateway its output hook. Order is fixed so that equal cuts make equal
// scripts.
func (c Config) rules(cuts []Cut) string {
	slices.SortFunc(cuts, func(a, b Cut) int {
		return cmp.Or(cmp.Compare(a.Network, b.Network), cmp.Compare(a.From, b.From), cmp.Compare(a.To, b.To),
			a.TCPPort-b.TCPPort, a.Percent-b.Percent)
	})
	hooks := map[string][]string{}
	for _, cut := range cuts {
		for _, n := range c.Networks {
			if cut.Network == "" || cut.Network == n.Name {
				for _, p := range c.pairs(cut) {
					hook, match := p.hook(n.Name)
					for _, verdict := range cut.verdicts() {
						hooks[hook] = append(hooks[hook], match+verdict)
					}
				}
			}
		}
	}
	var b strings.Builder
	b.WriteString("table bridge duet {}\ndelete table bridge duet\ntable bridge duet {\n")
	for _, hook := range []string{"forward", "input", "output"} {
		fmt.Fprintf(&b, "\tchain %s {\n\t\ttype filter hook %s priority 0; policy accept;\n", hook, hook)
		for _, rule := range hooks[hook] {
			b.WriteString("\t\t" + rule + "\n")
		}
		b.WriteString("\t}\n")
	}
	b.WriteString("}\n")
	return b.String()
}

// pair is the way from one end to another; both are named.
type pair struct{ from, to string }

// pairs spells out what a cut with empty names covers. The gateway is one of the ends that an empty name means.
func (c Config) pairs(cut Cut) []pair {
	ends := func(name string) []string {
		if name != "" {
			return []string{name}
		}
		return append([]string{Gateway}, c.Nodes...)
	}
	var all []pair
	for _, from := range ends(cut.From) {
		for _, to := range ends(cut.To) {
			if from != to {
				all = append(all, pair{from, to})
			}
		}
	}
	return all
}

// hook returns the hook of the bridge that frames of this way pass in a network, and what identifies them there.
// Ports are told apart by name, so a node that forges another one's address is still cut.
func (p pair) hook(network string) (name, match string) {
	in, out := fmt.Sprintf("iifname %q ", portName(p.from, network)), fmt.Sprintf("oifname %q ", portName(p.to, network))
	switch {
	case p.from == Gateway:
		return "output", out
	case p.to == Gateway:
		return "input", in
	}
	return "forward", in + out
}

// verdicts returns what follows the match of each of a cut's rules.
func (c Cut) verdicts() []string {
	drop := "drop"
	if c.Percent != 0 {
		drop = fmt.Sprintf("numgen random mod 100 < %d drop", c.Percent)
	}
	if c.TCPPort == 0 {
		return []string{drop}
	}
	return []string{fmt.Sprintf("tcp dport %d %s", c.TCPPort, drop), fmt.Sprintf("tcp sport %d %s", c.TCPPort, drop)}
}

// known reports a cut that names what is not there, which would otherwise cut nothing in silence. It is asked
// for Restore as well, where a wrong name would leave a cut in force.
func (c Config) known(cut Cut) error {
	node := func(name string) bool { return name == "" || name == Gateway || slices.Contains(c.Nodes, name) }
	network := func(n Network) bool { return n.Name == cut.Network }
	if !node(cut.From) || !node(cut.To) || cut.Network != "" && !slices.ContainsFunc(c.Networks, network) {
		return fmt.Errorf("cut %+v: no such node or network", cut)
	}
	if cut.From == Gateway && cut.To == Gateway || cut.TCPPort < 0 || cut.TCPPort > 65535 || cut.Percent < 0 ||
		cut.Percent > 100 {
		return fmt.Errorf("cut %+v: nothing goes this way", cut)
	}
	return nil
}

func bridgeName(network string) string     { return "br-" + network }
func portName(node, network string) string { return node + "-" + network }

// cableName is the name of a cable's end in the nodes.
func cableName(n Network) string {
	if n.Guests {
		return "up-" + n.Name
	}
	return n.Name
}

// validate: names end up in names of links, which have at most 15 bytes, and in files below /run/netns.
func (c Config) validate(prefix string) error {
	plain := regexp.MustCompile(`^[a-z][a-z0-9]{0,11}$`)
	if !plain.MatchString(prefix) {
		return fmt.Errorf("prefix %q: want a lower-case word", prefix)
	}
	if len(c.Nodes) == 0 || len(c.Networks) == 0 {
		return errors.New("a LAN needs a node and a network")
	}
	for i, node := range c.Nodes {
		if !plain.MatchString(node) || node == Switch || node == Gateway || slices.Contains(c.Nodes[:i], node) {
			return fmt.Errorf("node %q: want a lower-case word that is not taken", node)
		}
		for j, n := range c.Networks {
			if !plain.MatchString(n.Name) || n.Name == "lo" ||
				slices.ContainsFunc(c.Networks[:j], func(o Network) bool { return o.Name == n.Name }) {
				return fmt.Errorf("network %q: want a lower-case word that is not taken", n.Name)
			}
			if n.Guests && j == 0 {
				return fmt.Errorf("network %s: the first one is for the nodes", n.Name)
			}
			if !n.Subnet.IsValid() || !n.Subnet.Addr().Is4() || !n.Subnet.Contains(number(n.Subnet, firstNodeNumber+i)) {
				return fmt.Errorf("network %s: subnet %s has no room for %s", n.Name, n.Subnet, node)
			}
			if len(portName(node, n.Name)) > 15 {
				return fmt.Errorf("network %s: %s is too long for a link's name", n.Name, portName(node, n.Name))
			}
		}
	}
	return nil
}
