package setup

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"strings"
)

// Addr is this node's IP address on one heartbeat network. IP is in the form of netip, an IPv4 address never mapped
// into IPv6: addresses are compared as text elsewhere.
type Addr struct {
	Network string
	IP      string
}

// ParseAddrs reads "IP" and "NETWORK=IP". Networks without a name are hb1, hb2… by their place, so the nodes of a
// cluster have to name them in the same order. It refuses what other nodes cannot reach, and an address or a
// network that is given twice: two paths over one address fail together. Whether this computer has the address is
// not looked at.
func ParseAddrs(in []string) ([]Addr, error) {
	if len(in) == 0 {
		return nil, errors.New("give at least one IP address of this node")
	}
	name := regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._-]{0,31}$`)
	networks, ips := map[string]bool{}, map[netip.Addr]bool{}
	var out []Addr
	for i, s := range in {
		network, text, named := strings.Cut(s, "=")
		if !named {
			network, text = fmt.Sprintf("hb%d", i+1), s
		}
		ip, err := netip.ParseAddr(strings.TrimSpace(text))
		switch {
		case err != nil:
			return nil, fmt.Errorf("%q: not an IP address", s)
		case ip.IsUnspecified() || ip.IsMulticast() || ip.Zone() != "":
			return nil, fmt.Errorf("%q: other nodes cannot reach this address", s)
		case !name.MatchString(network):
			return nil, fmt.Errorf("%q: name a network with up to 32 letters, digits, '.', '_' or '-'", s)
		case networks[network]:
			return nil, fmt.Errorf("%q: network %s was given before", s, network)
		case ips[ip.Unmap()]:
			return nil, fmt.Errorf("%q: this address was given before; each network needs its own", s)
		}
		networks[network], ips[ip.Unmap()] = true, true
		out = append(out, Addr{Network: network, IP: ip.Unmap().String()})
	}
	return out, nil
}

// byNetwork is the form that cluster.Member keeps.
func byNetwork(addrs []Addr) map[string]string {
	out := map[string]string{}
	for _, a := range addrs {
		out[a.Network] = a.IP
	}
	return out
}
