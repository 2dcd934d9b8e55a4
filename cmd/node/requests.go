package node

import (
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"duet/appmodules"
	"duet/cluster"
	"duet/console/api"
)

// What makes sense in the requests of other nodes. A member is trusted with its own modules,
// not with this node's files: see the Check of each request, which runs before it is served.

var (
	requestID    = regexp.MustCompile(`^[a-zA-Z0-9]{1,64}$`)
	volumeTarget = regexp.MustCompile(`^[a-zA-Z0-9]{1,32}$`)
	volumeID     = regexp.MustCompile(`^[a-zA-Z0-9]{4,64}$`)
	moduleForm   = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,38}$`)
)

// maxImage is the largest image that another node may ask for, in bytes: 1 PiB.
const maxImage = 1 << 50

// checkVM accepts what hypervisors take for the name of a VM.
func checkVM(name string) error {
	odd := func(r rune) bool { return r == '/' || !unicode.IsPrint(r) }
	if name == "" || len(name) > 255 || strings.ContainsFunc(name, odd) {
		return fmt.Errorf("%q is no name of a VM", name)
	}
	return nil
}

// Check implements control.Checked.
func (h hosting) Check() error {
	if !requestID.MatchString(h.ID) || !moduleForm.MatchString(h.Module) {
		return fmt.Errorf("request %q for module %q: that is no name", h.ID, h.Module)
	}
	for _, p := range h.Places {
		switch {
		case !volumeTarget.MatchString(p.Target):
			return fmt.Errorf("%q is no disk", p.Target)
		case p.Size <= 0 || p.Size%512 != 0 || p.Size > maxImage:
			return fmt.Errorf("disk %s: %d bytes", p.Target, p.Size)
		case p.Path != "" && (!filepath.IsAbs(p.Path) || filepath.Clean(p.Path) != p.Path):
			return fmt.Errorf("disk %s: %q is no whole path", p.Target, p.Path)
		}
	}
	return checkVM(h.VM)
}

// Check implements control.Checked.
func (s stored) Check() error {
	if faults := s.Module.Validate(); len(faults) > 0 {
		return faults[0]
	}
	for _, v := range s.Module.Volumes() {
		if !volumeTarget.MatchString(v.Target) || !volumeID.MatchString(v.ID) {
			return fmt.Errorf("%q (%q) is no volume", v.Target, v.ID)
		}
	}
	var subject error
	if runners[s.Module.Kind].define != nil {
		subject = checkVM(s.Module.Subject())
	}
	return errors.Join(subject, cluster.NodeID(s.Version.By).Check())
}

// Check implements control.Checked.
func (nm newModule) Check() error {
	// A kind without definitions has none to send.
	needs := runners[nm.Stored.Module.Kind].define != nil
	if name := nm.Stored.Module.Name; needs && (nm.Definition.Module != name || len(nm.Definition.Text) == 0) {
		return fmt.Errorf("the definition is of module %q and has %d bytes, the module is %s", nm.Definition.Module, len(nm.Definition.Text), name)
	}
	return nm.Stored.Check()
}

// mayCreate refuses a module that is not between this node and from, or whose images are not
// those that this node made for it.
func (n *Node) mayCreate(from cluster.NodeID, nm newModule) error {
	m, self := nm.Stored.Module, string(n.self())
	if !slices.Contains(m.Nodes, self) || m.Peer(self) != string(from) || nm.Source != from {
		return fmt.Errorf("%w: module %s is between %s, with the data of %s: it is not for %s to give it to %s", api.ErrInvalid, m.Name,
			strings.Join(m.Nodes, " and "), nm.Source, from, self)
	}
	notes, err := n.hostings()
	if err != nil {
		return err
	}
	for _, v := range m.Volumes() {
		mine := func(h hosted) bool { return h.Module == m.Name && h.has(v.Paths[self]) }
		if !anyOf(notes, mine) && !n.has(m, v) {
			return fmt.Errorf("%w: volume %s: %s has not made %s for module %s", api.ErrInvalid, v.Target, self, v.Paths[self], m.Name)
		}
	}
	return nil
}

// has reports whether this node has the module on that image already: the request is repeated.
func (n *Node) has(m appmodules.Module, v appmodules.Volume) bool {
	have, err := n.module(m.Name)
	return err == nil && have.cfg.Identity() == m.Identity() && slices.ContainsFunc(have.cfg.Volumes(), func(o appmodules.Volume) bool {
		return o.ID == v.ID && o.Paths[string(n.self())] == v.Paths[string(n.self())]
	})
}

func anyOf(notes map[string]hosted, ok func(hosted) bool) bool {
	for _, h := range notes {
		if ok(h) {
			return true
		}
	}
	return false
}

// Check implements control.Checked.
func (j judging) Check() error { return checkVM(j.VM) }
