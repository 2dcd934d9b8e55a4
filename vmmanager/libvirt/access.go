package libvirt

import (
	"cmp"
	"fmt"
	"os/user"
	"strconv"
	"strings"
)

// owner is a user and a group of this host, by number.
type owner struct{ uid, gid int }

// qemuUser returns whom QEMU runs as: what the VM's own DAC label says, in the definition or of the running VM, or what
// libvirt gives every VM without one, which its capabilities tell. A domain that names a label of another model
// only (AppArmor, SELinux) has the common user.
func qemuUser(domain, capabilities *element) (owner, error) {
	for _, label := range domain.all("seclabel") {
		if text := label.child("label"); label.attr("model") == "dac" && text != nil {
			return parseOwner(text.text)
		}
	}
	return baseUser(capabilities, domain.attr("type"))
}

// baseUser returns whom libvirt runs a QEMU as that has no label of its own; kind is the type of its domain. The
// types kvm and qemu may differ in their group.
func baseUser(capabilities *element, kind string) (owner, error) {
	for _, model := range capabilities.child("host").all("secmodel") {
		if name := model.child("model"); name == nil || name.text != "dac" {
			continue
		}
		for _, base := range model.all("baselabel") {
			if base.attr("type") == cmp.Or(kind, "qemu") {
				return parseOwner(base.text)
			}
		}
	}
	return owner{}, fmt.Errorf("libvirt does not say whom a %s VM runs as", cmp.Or(kind, "qemu"))
}

// parseOwner reads "user:group" as libvirt does: a number after a plus is a number, anything else is a name, or a
// number if there is none of that name.
func parseOwner(label string) (owner, error) {
	u, g, ok := strings.Cut(strings.TrimSpace(label), ":")
	if !ok {
		return owner{}, fmt.Errorf("label %q is not USER:GROUP", label)
	}
	uid, err := parseID(u, func(name string) (string, error) {
		found, err := user.Lookup(name)
		if err != nil {
			return "", err
		}
		return found.Uid, nil
	})
	if err != nil {
		return owner{}, fmt.Errorf("user of label %q: %w", label, err)
	}
	gid, err := parseID(g, func(name string) (string, error) {
		found, err := user.LookupGroup(name)
		if err != nil {
			return "", err
		}
		return found.Gid, nil
	})
	if err != nil {
		return owner{}, fmt.Errorf("group of label %q: %w", label, err)
	}
	return owner{uid, gid}, nil
}

// parseID reads a user or group. Numbers have 31 bits: -1 would mean "as it is" to chown(2).
func parseID(text string, lookup func(string) (string, error)) (int, error) {
	number, isNumber := strings.CutPrefix(text, "+")
	if !isNumber {
		if id, err := lookup(text); err == nil {
			number = id
		}
	}
	id, err := strconv.ParseUint(number, 10, 31)
	if err != nil {
		return 0, fmt.Errorf("%q is neither a name known here nor a number", text)
	}
	return int(id), nil
}
