package libvirt

import (
	"encoding/xml"
	"strings"
)

// hidden stands for what is not shown.
const hidden = "***"

// withoutSecrets is a definition as it may be shown to strangers: what is known to be
// a password goes, and so does all that an admin may have put one into. A text that is
// no XML is hidden as a whole.
func withoutSecrets(text []byte) []byte {
	root, err := parseXML(text)
	if err != nil {
		return []byte(hidden)
	}
	return apply(text, hideIn(text, root))
}

// hideIn lists the edits that hide the secrets of e and of what it holds. A prefix of a namespace does not count.
// Where all of an element goes its children are not looked at: edits must not overlap.
func hideIn(text []byte, e *element) []edit {
	name := e.name[strings.LastIndexByte(e.name, ':')+1:]
	switch name {
	case "metadata", "sysinfo", "launchSecurity", "cookies": // other programs' notes, strings for the guest, keys
		return hideInside(text, e)
	case "commandline": // of QEMU: arguments and environment
		var out []edit
		for _, c := range e.children {
			out = append(out, retag(text, c, set("value", hidden)))
		}
		return out
	}
	var out []edit
	var masked []xml.Attr
	for _, a := range e.attrs {
		if secretAttr(a.Name.Local) {
			masked = append(masked, xml.Attr{Name: a.Name, Value: hidden})
		}
	}
	if len(masked) > 0 {
		out = append(out, retag(text, e, masked))
	}
	for _, c := range e.children {
		out = append(out, hideIn(text, c)...)
	}
	return out
}

// secretAttr tells by its name that an attribute holds a secret: passwd, password, cookie… passwdValidTo is a time.
func secretAttr(name string) bool {
	name = strings.ToLower(name)
	if name == "passwdvalidto" {
		return false
	}
	for _, part := range []string{"passw", "secret", "token", "cookie"} {
		if strings.Contains(name, part) {
			return true
		}
	}
	return false
}

// hideInside replaces all that stands between the tags of e. One that is empty stays.
func hideInside(text []byte, e *element) []edit {
	if len(e.children) == 0 && strings.TrimSpace(e.text) == "" {
		return nil
	}
	end := strings.LastIndex(string(text[:e.end]), "</")
	return []edit{{from: e.open, to: end, with: hidden}}
}
