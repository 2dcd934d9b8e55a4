package doctor

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// versions judges whether the daemons can work together. Releases may differ by one; the protocol of replication
// must be the same on both. What only a command looked at says nothing of a daemon.
func versions(s *sheet, l Look) {
	builds, protocols := map[string][]string{}, map[int][]string{}
	for _, n := range l.Nodes {
		if n.Facts != nil && n.Facts.Daemon {
			builds[n.Facts.Version] = append(builds[n.Facts.Version], n.Name)
			protocols[n.Facts.Protocol] = append(protocols[n.Facts.Protocol], n.Name)
		}
	}
	var who []string
	for _, v := range slices.Sorted(maps.Keys(builds)) {
		who = append(who, v+" on "+strings.Join(builds[v], ", "))
	}
	said := "duetd " + strings.Join(who, ", ")
	switch {
	case len(builds) == 0:
	case len(protocols) > 1:
		s.add(Problem, "version", "upgrade the older one: its VMs go on meanwhile",
			"%s: they cannot replicate to each other", said)
	case len(builds) > 1:
		s.add(Note, "version", "upgrade the older one when it suits", "%s: they work together", said)
	default:
		s.add(OK, "version", "", "%s", said)
	}
}

// networks judges how many ways the nodes have to each other. All nodes have the same networks, so the first that
// told any will do.
func networks(s *sheet, l Look) {
	for _, n := range l.Nodes {
		if n.Facts == nil || len(n.Facts.Routes) == 0 {
			continue
		}
		first := n.Facts.Routes[0]
		if !slices.ContainsFunc(n.Facts.Routes, func(r Route) bool { return r.Network != first.Network }) {
			s.add(Note, "network", "",
				"there is one heartbeat network only, %s: when it fails the nodes take each other for dead", first.Network)
		}
		return
	}
}

// witnesses judges whether those of the cluster answer one node. That a node was removed is said once, where another
// one says it too.
func witnesses(s *sheet, l Look, f Facts) {
	for _, w := range f.Witnesses {
		switch {
		case w.Alive:
			s.add(OK, "witness", "", "witness %s answers", w.Addr)
		case w.Removed && s.node == l.Nodes[0].Name && l.removed():
		case w.Removed:
			s.add(Problem, "member", back("another node", f.Node),
				"the witness %s does not take %s for a member: it was removed from the cluster", w.Addr, f.Node)
		case w.Refuses != "":
			s.add(Warning, "witness", "on that computer: `journalctl -u duetd-witness -n 20`, and `timedatectl` there and here",
				"the witness %s answers and refuses: %s; a node that now loses its peer waits", w.Addr, w.Refuses)
		case w.Spare:
			s.add(Warning, "witness", "on that computer: `systemctl status duetd-witness`",
				"the spare witness %s does not answer: it could not take the voter's place", w.Addr)
		default:
			s.add(Warning, "witness", "on that computer: `systemctl status duetd-witness`",
				"the witness %s does not answer: a node that now loses its peer waits", w.Addr)
		}
	}
}

// copies judges which modules have no second copy because the node that had it is no member any more. A node that was
// removed itself knows nothing of the members.
func copies(s *sheet, l Look) {
	if l.removed() {
		return
	}
	lone := map[string][]string{} // by the node that is gone
	at := map[string]string{}     // a node that has the one copy
	for _, n := range l.Nodes {
		if n.Facts == nil || !n.Facts.Daemon { // a command sees no other node
			continue
		}
		for _, m := range n.Facts.Modules {
			if _, member := l.node(m.Peer); m.Peer != "" && !member {
				lone[m.Peer], at[m.Peer] = add(lone[m.Peer], m.Name), n.Name
			}
		}
	}
	for _, gone := range slices.Sorted(maps.Keys(lone)) {
		verb := "have"
		if len(lone[gone]) == 1 {
			verb = "has"
		}
		s.add(Warning, "copies", back(at[gone], gone)+fmt.Sprintf("; a new computer takes its place with `duet cluster join "+
			"--node %s`; without a second copy `duet vm release --without-peer` ends the protection", gone),
			"%s %s one copy only: %s, which had the second one, is no member of the cluster",
			strings.Join(lone[gone], ", "), verb, gone)
	}
}

// modules judges which modules run on no node although they are wanted, and has the nodes say why; and which run on one
// copy. A node that was
// removed does not know what runs; of one that told nothing it is not known either.
func modules(s *sheet, l Look) {
	if l.removed() {
		return
	}
	runs, wanted, moves := map[string]bool{}, map[string]bool{}, map[string]bool{}
	// Where it runs beside a member that has a copy or is to get one, and whether that one has it, as both say.
	bare, whole := map[string]string{}, map[string]bool{}
	why := map[string][]string{}
	for _, n := range l.Nodes {
		if n.Facts == nil {
			continue
		}
		for _, m := range n.Facts.Modules {
			// One that is not Ready and up all the same has a notice, which says what is wrong.
			up := m.Status == "Ready" || m.Status == "NotReady" && slices.Contains([]string{"running", "paused"}, m.Condition)
			up = up && slices.Contains([]string{"PRIM", "ALONE", "UP"}, m.Role)
			if _, member := l.node(m.Peer); up && member && m.Role != "UP" {
				bare[m.Name], whole[m.Name] = n.Name, m.Role == "PRIM" && l.mayTakeOver(m.Peer, m.Name)
			}
			runs[m.Name] = runs[m.Name] || up || m.Role == "" // else it may run there
			moves[m.Name] = moves[m.Name] || m.Status == "Transient" && m.Role != "SECOND"
			wanted[m.Name] = wanted[m.Name] || !m.Stopped
			why[m.Name] = append(why[m.Name], fmt.Sprintf("%s is %s: %s", n.Name, m.Role, m.Why))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(wanted)) {
		if runs[name] && bare[name] != "" && !whole[name] {
			s.add(Warning, "copies", fmt.Sprintf("wait, or bring the other host back: `duet status %s` says what it waits "+
				"for and how far it is", name), "%s has one copy only, on %s, until the other one is whole", name, bare[name])
		}
		level, fact := Problem, "does not run"
		switch {
		case moves[name]:
			level, fact = Warning, "does not run yet"
		case l.mayRun(name): // as the verdict of status says it
			fact = "runs on no node that answers"
		}
		if wanted[name] && !runs[name] {
			s.add(level, "modules", fmt.Sprintf("`duet status %s` and `duet log %s` have more", name, name), "%s %s: %s",
				name, fact, strings.Join(why[name], "; "))
		}
	}
}

// mayRun: a node that has a copy of a module tells nothing of itself, and may run it, as one that is cut off.
func (l Look) mayRun(module string) bool {
	return slices.ContainsFunc(l.Nodes, func(n Node) bool {
		return n.Facts != nil && slices.ContainsFunc(n.Facts.Modules, func(m Module) bool {
			peer, member := l.node(m.Peer)
			return m.Name == module && member && peer.Facts == nil
		})
	})
}

// mayTakeOver: the node says that its copy of a module is whole; or it tells nothing of itself, or not that.
func (l Look) mayTakeOver(node, module string) bool {
	n, _ := l.node(node)
	if n.Facts == nil {
		return true // that is said of the node
	}
	i := slices.IndexFunc(n.Facts.Modules, func(m Module) bool { return m.Name == module })
	if i < 0 {
		return false
	}
	m := n.Facts.Modules[i]
	return m.Role == "" || m.Role == "SECOND" && m.Status == "Ready"
}

// notices passes on what one node says is to be mended of its modules, once where several have the same. A node that
// was removed does not know what is.
func notices(s *sheet, l Look, f Facts) {
	if l.removed() {
		return
	}
	var all []Notice
	of := map[Notice][]string{}
	for _, m := range f.Modules {
		for _, x := range m.Notices {
			if of[x] == nil {
				all = append(all, x)
			}
			of[x] = add(of[x], m.Name)
		}
	}
	for _, x := range all {
		level := Warning
		if x.Alarm {
			level = Problem
		}
		remedy := x.Remedy
		if remedy == "" {
			remedy = fmt.Sprintf("`duet status %s` has more", of[x][0])
		}
		s.add(level, "modules", remedy, "%s: %s", strings.Join(of[x], ", "), x.Text)
	}
}

// devices judges whether one node could switch others off.
func devices(s *sheet, f Facts) {
	for _, d := range f.Devices {
		if d.Problem == "" {
			s.add(OK, "fence", "", "fence device %s of %s answers", d.Name, d.Node)
			continue
		}
		s.add(Warning, "fence", fmt.Sprintf("mend it or what is configured of it (`duet cluster fence set %s`), then `duet "+
			"cluster fence test %s` on %s", d.Node, d.Node, f.Node),
			"fence device %s could not switch %s off: %s", d.Name, d.Node, d.Problem)
	}
}

// targets judges whether those answer one node that its modules with "available" go by; one that answers is enough.
func targets(s *sheet, f Facts) {
	if f.Targets == nil {
		return
	}
	const other = "`duet cluster ping set` names others"
	var silent, answer, stand []string
	for _, t := range f.Targets {
		if t.Answers {
			answer = append(answer, t.Addr)
		} else {
			silent = append(silent, t.Addr)
		}
	}
	peer := ""
	for _, m := range f.Modules {
		if m.Arbitration == "available" && !slices.Contains(f.Fenced, m.Peer) {
			stand, peer = add(stand, m.Name), m.Peer
		}
	}
	still := fmt.Sprintf("%s would wait if %s were lost", strings.Join(stand, ", "), peer)
	switch {
	case len(f.Targets) == 0:
		s.add(Warning, "ping", other, "there is no ping target, and no default gateway: %s", still)
	case len(answer) == 0:
		s.add(Warning, "ping", "`ping -c 3 "+silent[0]+"`; "+other, "no ping target answers (%s): %s",
			strings.Join(silent, ", "), still)
	case len(silent) > 0:
		s.add(Warning, "ping", "`ping -c 3 "+silent[0]+"`; "+other, "ping target %s does not answer, others do",
			strings.Join(silent, ", "))
	default:
		s.add(OK, "ping", "", "ping target %s answers", strings.Join(answer, ", "))
	}
}

// arbitration judges what decides when nodes lose each other and no witness is there. A fence device counts for a
// module if it can switch off that module's peer. No more than a note where only a policy decides that was chosen
// for it.
func arbitration(s *sheet, l Look) {
	i := slices.IndexFunc(l.Nodes, func(n Node) bool { return n.Facts != nil && n.Facts.Daemon })
	if i < 0 {
		return
	}
	f := l.Nodes[i].Facts // who decides is the same on all nodes
	if slices.ContainsFunc(f.Witnesses, func(w Witness) bool { return !w.Spare }) {
		return
	}
	const remedy = "`duetd witness` on a third computer, then `duet cluster witness add`; or `duet cluster fence set`"
	var safe, available []string
	modules := 0
	for _, n := range l.Nodes {
		if n.Facts == nil {
			continue
		}
		for _, m := range n.Facts.Modules {
			modules++
			switch {
			case slices.Contains(f.Fenced, m.Peer):
			case m.Arbitration == "available":
				available = add(available, m.Name)
			default:
				safe = add(safe, m.Name)
			}
		}
	}
	if len(safe) > 0 {
		s.add(Warning, "arbitration", remedy,
			"neither witness nor fence device: when a node dies, %s on the other one until it is back or somebody types "+
				"`duet prim`",
			wait(safe))
	}
	if len(available) > 0 {
		s.add(Note, "arbitration", remedy,
			"without a witness a cut that leaves both nodes their gateway makes two writers of %s; one version is kept aside",
			strings.Join(available, ", "))
	}
	switch {
	case len(safe)+len(available) > 0:
	case modules > 0:
		s.add(OK, "arbitration", "", "no witness; fence devices decide when a node is lost")
	case len(l.Nodes) > 1:
		s.add(Note, "arbitration", remedy, "no witness yet: it is the best way to decide when the nodes lose each other")
	}
}

// wait is "web01 waits", "db, web01 wait".
func wait(names []string) string {
	verb := " wait"
	if len(names) == 1 {
		verb = " waits"
	}
	return strings.Join(names, ", ") + verb
}

// add keeps names sorted, each once.
func add(names []string, name string) []string {
	if i, found := slices.BinarySearch(names, name); !found {
		return slices.Insert(names, i, name)
	}
	return names
}
