package doctor

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// clockSlack is how far apart clocks may be: logs are read side by side, and new
// certificates are valid from now on.
const clockSlack = 2 * time.Second

// clock gives the first node the benefit of the doubt: what the exchange itself cannot tell apart is no finding.
func clock(s *sheet, first string, n Node) {
	off := n.Ahead.Abs()
	switch {
	case off-n.Within > clockSlack:
		way := "ahead of"
		if n.Ahead < 0 {
			way = "behind"
		}
		s.add(Warning, "clock", "`timedatectl set-ntp true` on both",
			"its clock is %s %s %s's: logs cannot be compared, and new certificates may be refused", round(off), way, first)
	default:
		s.add(OK, "clock", "", "its clock and %s's differ by less than %s", first, round(off+n.Within))
	}
}

// round gives a duration two digits or so.
func round(d time.Duration) time.Duration {
	for _, unit := range []time.Duration{time.Second, 100 * time.Millisecond, 10 * time.Millisecond, time.Millisecond} {
		if d >= 10*unit {
			return d.Round(unit)
		}
	}
	return max(d.Round(time.Millisecond), time.Millisecond)
}

// ports judges those that a daemon which does not run yet will want.
func ports(s *sheet, f Facts) {
	bad := 0
	for _, p := range f.Ports {
		port := p.Addr[strings.LastIndexByte(p.Addr, ':')+1:]
		switch p.Problem {
		case "":
			continue
		case Busy:
			s.add(Problem, "ports", "`ss -lntup 'sport = :"+port+"'` shows which; end it, or give the cluster another --port",
				"another program has %s %s", p.Proto, p.Addr)
		case NoAddr:
			s.add(Problem, "ports", "`ip -br addr` shows which there are", "this host does not have the address of %s %s",
				p.Proto, p.Addr)
		default:
			s.add(Problem, "ports", "", "%s %s cannot be had: %s", p.Proto, p.Addr, p.Problem)
		}
		bad++
	}
	if len(f.Ports) > 0 && bad == 0 {
		s.add(OK, "ports", "", "the ports that duetd will want are free")
	}
}

// routes judges the ways from one node to the others. Those to a node that told nothing, and of which no port is
// open, are left to away: one trouble, one finding. Heartbeats say nothing of the way to a node whose daemon answers
// nothing, or whose cluster is another one by now; connections do, which its kernel takes: those find what is shut, but
// only a heartbeat that comes back shows that the node is reached.
func routes(s *sheet, l Look, f Facts) {
	var order []string
	by := map[string][]Route{}
	for _, r := range f.Routes {
		if by[r.To] == nil {
			order = append(order, r.To)
		}
		by[r.To] = append(by[r.To], r)
	}
	for _, to := range order {
		there, _ := l.node(to)
		mute := there.Facts == nil && there.Name != ""
		dead := !slices.ContainsFunc(by[to], func(r Route) bool { return r.has(Open) })
		if dead && mute {
			continue // said once, where the node itself is judged
		}
		var good []string
		for _, r := range by[to] {
			heard := !mute || r.heard()
			if mute {
				r = r.byTCP()
			}
			if route(s, r, there.Facts) && heard {
				good = append(good, fmt.Sprintf("%s (%s)", r.Network, r.Addr))
			}
		}
		if len(good) > 0 {
			s.add(OK, "network", "", "reaches %s on %s", to, strings.Join(good, ", "))
		}
	}
}

// route judges one way; it is good if all ports that were tried are open. The worst comes first: nothing answers,
// all is refused, only the API is shut, something else is shut. An API port that is served elsewhere is not missed.
func route(s *sheet, r Route, there *Facts) (good bool) {
	var shut []Probe
	for _, p := range r.Probes {
		if p.API && (there == nil || there.API != fmt.Sprintf("%s:%d", bracket(r.Addr), p.Port)) {
			continue // it is served elsewhere, or nobody knows where
		}
		if p.State == Refused || p.State == Silent {
			shut = append(shut, p)
		}
	}
	where := fmt.Sprintf("%s on %s (%s)", r.To, r.Network, r.Addr)
	kind := ""
	if there != nil {
		kind = there.Host.Firewall
	}
	switch {
	case len(shut) == 0:
		return r.has(Open)
	case !r.has(Open) && !r.has(Refused):
		s.add(Problem, "network", fmt.Sprintf("`ip -br addr` on both shows the addresses, `ping -c 3 -I %s %s` the way; "+
			"then the firewall of %s: %s", r.From, r.Addr, r.To, allow(kind, r.Probes)),
			"nothing of %s answers", where)
	case !r.has(Open):
		s.add(Problem, "network", fmt.Sprintf("on %s: `systemctl status duetd`; if it runs, its firewall: %s", r.To,
			allow(kind, r.Probes)),
			"%s answers and refuses every port", where)
	case !slices.ContainsFunc(shut, func(p Probe) bool { return !p.API }):
		s.add(Warning, "network", fmt.Sprintf("in the firewall of %s: %s", r.To, allow(kind, shut)),
			"does not reach the API of %s: %s", where, list(shut))
	default:
		s.add(Problem, "network", fmt.Sprintf("in the firewall of %s: %s", r.To, allow(kind, shut)),
			"does not reach %s of %s", list(shut), where)
	}
	return false
}

func (r Route) has(state string) bool {
	return slices.ContainsFunc(r.Probes, func(p Probe) bool { return p.State == state })
}

func (l Look) node(name string) (Node, bool) {
	i := slices.IndexFunc(l.Nodes, func(n Node) bool { return n.Name == name })
	if i < 0 {
		return Node{}, false
	}
	return l.Nodes[i], true
}

// away judges a node that told nothing, by how that is and by what others see of its ports: one that takes connections
// is up, and one that refuses them too.
func away(s *sheet, l Look, n Node) {
	first, on := l.Nodes[0].Name, "on "+n.Name+": "
	switch {
	case n.How == Refuses:
		s.out = append(s.out, Finding{Node: first, Level: Problem, About: "member",
			Fact:   fmt.Sprintf("%s does not take %s for a member: it was removed from the cluster", n.Name, first),
			Remedy: back(n.Name, first)})
	case n.How == Replaced:
		s.add(Problem, "member", "`ip -br addr` there shows whether it has another node's address; if it was removed, "+
			back(first, n.Name),
			"what answers at its addresses is not the computer that is a member as %s", n.Name)
	case n.How == Mute && l.sees(n.Name, Open):
		s.add(Problem, "node", on+"`journalctl -u duetd -n 50`, then `systemctl restart duetd`; if that hangs too, `dmesg`",
			"%s; its computer takes connections and says nothing on them: duetd hangs there", n.Why)
	case !l.sees(n.Name, Open) && l.sees(n.Name, Refused):
		s.add(Problem, "node", on+"`systemctl status duetd`, then `duet doctor`",
			"%s; its computer is up, duetd does not run there", n.Why)
	case n.How == Mute && l.sees(n.Name, Silent):
		var pings []string
		for _, r := range l.Nodes[0].Facts.routes() {
			if r.To == n.Name {
				pings = append(pings, fmt.Sprintf("`ping -c 3 -I %s %s`", r.From, r.Addr))
			}
		}
		s.add(Problem, "node", fmt.Sprintf("is it switched on? %s show the way to it; then %s`systemctl status duetd`, and "+
			"its firewall", strings.Join(pings, ", "), on),
			"%s; nothing answers at its addresses: it is off, or cut off", n.Why)
	default:
		s.add(Problem, "node", on+"`systemctl status duetd`, then `duet doctor`", "%s", n.Why)
	}
}

// back is how a node that was removed becomes a member again, by a token of another one.
func back(by, removed string) string {
	return fmt.Sprintf("to bring %s back: `duet cluster token` on %s; then on %s `systemctl stop duetd`, `duet cluster "+
		"rejoin`, `systemctl start duetd`", removed, by, removed)
}

// removed: another node takes the one that looks for no member.
func (l Look) removed() bool {
	return slices.ContainsFunc(l.Nodes, func(n Node) bool { return n.How == Refuses })
}

// routes are none of a node that told nothing.
func (f *Facts) routes() []Route {
	if f == nil {
		return nil
	}
	return f.Routes
}

// sees: a port of the node is in that state for any other one, as TCP has it.
func (l Look) sees(node, state string) bool {
	return slices.ContainsFunc(l.Nodes, func(o Node) bool {
		return slices.ContainsFunc(o.Facts.routes(), func(r Route) bool { return r.To == node && r.byTCP().has(state) })
	})
}

// heard: heartbeats come back, or it was not looked whether they do.
func (r Route) heard() bool {
	return !slices.ContainsFunc(r.Probes, func(p Probe) bool { return p.Proto == UDP && p.State == Silent })
}

// byTCP is the route without what its node's daemon has to answer itself.
func (r Route) byTCP() Route {
	r.Probes = slices.DeleteFunc(slices.Clone(r.Probes), func(p Probe) bool { return p.Proto != TCP })
	return r
}

func bracket(ip string) string {
	if strings.Contains(ip, ":") {
		return "[" + ip + "]"
	}
	return ip
}

func list(ps []Probe) string {
	var out []string
	for _, p := range ps {
		out = append(out, fmt.Sprintf("%s %d", p.Proto, p.Port))
	}
	return strings.Join(out, ", ")
}

// allow is how a firewall lets ports in; of one that is not known, for each kind.
func allow(kind string, ps []Probe) string {
	var all []string
	for _, k := range []string{"ufw", "firewalld", "nft"} {
		if kind == "" || kind == k {
			all = append(all, "`"+allowBy(k, ps)+"`"+map[string]string{"nft": ", and in /etc/nftables.conf to keep it"}[k])
		}
	}
	return strings.Join(all, " or ")
}

// allowBy names commands that hold after a reboot too, but for nft.
func allowBy(kind string, ps []Probe) string {
	byProto := map[string][]string{}
	for _, p := range ps {
		proto := strings.ToLower(p.Proto)
		byProto[proto] = append(byProto[proto], fmt.Sprint(p.Port))
	}
	var steps []string
	for _, proto := range []string{"tcp", "udp"} {
		ports := byProto[proto]
		if len(ports) == 0 {
			continue
		}
		switch kind {
		case "ufw":
			steps = append(steps, fmt.Sprintf("ufw allow %s/%s", strings.Join(ports, ","), proto))
		case "firewalld":
			step := "firewall-cmd --permanent"
			for _, p := range ports {
				step += " --add-port=" + p + "/" + proto
			}
			steps = append(steps, step)
		case "nft":
			steps = append(steps, fmt.Sprintf("nft insert rule inet filter input %s dport '{ %s }' accept", proto,
				strings.Join(ports, ", ")))
		}
	}
	if kind == "firewalld" {
		steps = append(steps, "firewall-cmd --reload")
	}
	return strings.Join(steps, " && ")
}
