package libvirt

// loosen returns a definition that starts although removable media are not on this host,
// and the drives that are empty then; none: the definition stays as it is. Whether a medium is there is looked at
// once, before the start: one that goes in between fails it.
func loosen(text []byte, h *host) (out []byte, empty []string, err error) {
	domain, err := parseXML(text)
	if err != nil {
		return nil, nil, err
	}
	var edits []edit
	for _, d := range disks(domain) {
		m, ok := mediumOf(d)
		if !ok || m.policy != "" || !m.missing(h) {
			continue // there, or an admin has said what happens without it
		}
		empty = append(empty, m.about)
		edits = append(edits, retag(text, d.child("source"), set("startupPolicy", "optional")))
	}
	return apply(text, edits), empty, nil
}

// mediumOf returns what lies in a drive for removable media; ok is false if nothing does.
func mediumOf(d disk) (m medium, ok bool) {
	source := d.child("source")
	if d.device != "cdrom" && d.device != "floppy" || source == nil {
		return medium{}, false
	}
	return medium{about: d.device + " " + d.target, path: d.path(), pool: source.attr("pool"),
		volume: source.attr("volume"),
		policy: source.attr("startupPolicy"), target: d.target}, true
}
