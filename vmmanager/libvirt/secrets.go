package libvirt

import (
	"encoding/xml"
	"regexp"
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
	case "title", "description", "metadata", // notes of people and of other programs
		"cmdline", "initarg", "initenv", "sysinfo", // strings for the guest
		"launchSecurity", "cookies": // keys
		return hideInside(text, e)
	}
	var out []edit
	var masked []xml.Attr
	for _, a := range e.attrs {
		if secretAttr(a.Name.Local) || secretValue(a.Value) || handedOn(name) && a.Name.Local == "value" {
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

// handedOn tells by its name that an element is one of those that go to QEMU as they are: of its command line and its
// environment, and properties of its devices.
func handedOn(name string) bool { return name == "arg" || name == "env" || name == "property" }

// secretAttr tells by its name that an attribute holds a secret: passwd, password, cookie… passwdValidTo is a time. The
// query of a disk's URL is all the proof of who asks that some servers want.
func secretAttr(name string) bool {
	name = strings.ToLower(name)
	if name == "passwdvalidto" {
		return false
	}
	for _, part := range []string{"passw", "secret", "token", "cookie", "query"} {
		if strings.Contains(name, part) {
			return true
		}
	}
	return false
}

// secretValue tells by how it looks that a value holds a secret: a URL with the password of its user, or a string of
// options with one, as the name of an image in Ceph may be (pool/image:id=admin:key=…).
func secretValue(value string) bool { return secretValues.MatchString(value) }

var secretValues = regexp.MustCompile(`(?i)://[^/?#]*@|(key|passw[a-z]*|secret|token)["']?[=:]`)

// hideInside replaces all that stands between the tags of e. One that is empty stays.
func hideInside(text []byte, e *element) []edit {
	if len(e.children) == 0 && strings.TrimSpace(e.text) == "" {
		return nil
	}
	end := strings.LastIndex(string(text[:e.end]), "</")
	return []edit{{from: e.open, to: end, with: hidden}}
}
