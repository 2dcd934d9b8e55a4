package libvirt

import (
	"fmt"

	"duet/vmmanager"
)

// securityModels reads the security models of libvirt's capabilities, each with its
// label for QEMU's guests, or for those of qemu (emulated) where there is no other. They are for people; whom QEMU
// runs as for the granting of files is access.go's.
func securityModels(text []byte) ([]vmmanager.SecurityModel, error) {
	root, err := parseXML(text)
	if err != nil {
		return nil, fmt.Errorf("read capabilities: %w", err)
	}
	var out []vmmanager.SecurityModel
	for _, m := range root.child("host").all("secmodel") {
		label := ""
		for _, b := range m.all("baselabel") {
			if label == "" || b.attr("type") == "kvm" {
				label = b.text
			}
		}
		out = append(out, vmmanager.SecurityModel{Model: m.child("model").body(), Label: label})
	}
	return out, nil
}

// body is the text directly inside; it may be called on nil.
func (e *element) body() string {
	if e == nil {
		return ""
	}
	return e.text
}

// dotted writes libvirt's number of a version: major · 1,000,000 + minor · 1,000 + release.
func dotted(v uint32) string { return fmt.Sprintf("%d.%d.%d", v/1_000_000, v/1000%1000, v%1000) }
