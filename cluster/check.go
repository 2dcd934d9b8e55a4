package cluster

import (
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"regexp"
)

var nodeName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._-]{0,62}$`)

// Check accepts what is safe in certificates, addresses and file names.
func (n NodeID) Check() error {
	if !nodeName.MatchString(string(n)) {
		return fmt.Errorf("node name %q: use 1 to 63 letters, digits, '.', '_' or '-', and begin with a letter or digit",
			string(n))
	}
	return nil
}

// Check refuses a member that no configuration may hold.
func (m Member) Check() error {
	if err := m.Node.Check(); err != nil {
		return err
	}
	for network, a := range m.Addrs {
		if _, err := netip.ParseAddr(a); err != nil || network == "" {
			return fmt.Errorf("node %s: no good address for network %q: %q", m.Node, network, a)
		}
	}
	return nil
}

// maxTargets is more than anybody asks.
const maxTargets = 16

// CheckPing refuses ping targets that no node could ask: a name would be looked up without a bound.
func CheckPing(targets []string) error {
	if len(targets) > maxTargets {
		return fmt.Errorf("%d ping targets: at most %d", len(targets), maxTargets)
	}
	for _, t := range targets {
		if net.ParseIP(t) == nil {
			return fmt.Errorf("ping %q: must be an IP address", t)
		}
	}
	return nil
}

// maxWitnesses is more than anybody has.
const maxWitnesses = 16

// Check refuses voters that no node could use.
func (v Voters) Check() error {
	if len(v.Active) > 2 || len(v.All()) > maxWitnesses {
		return fmt.Errorf("%d voters and %d spares: at most 2 and %d in all", len(v.Active), len(v.Spares), maxWitnesses)
	}
	seen := map[string]bool{}
	for _, w := range v.All() {
		if _, _, err := net.SplitHostPort(w.Addr); err != nil {
			return fmt.Errorf("witness: %q is no host:port", w.Addr)
		}
		if key, err := hex.DecodeString(w.Key); err != nil || len(key) != 32 {
			return fmt.Errorf("witness %s: its key is no fingerprint", w.Addr)
		}
		if w.ID == "" || seen[w.ID] {
			return fmt.Errorf("witness %s: its ID %q is missing or there twice", w.Addr, w.ID)
		}
		seen[w.ID] = true
	}
	return nil
}
