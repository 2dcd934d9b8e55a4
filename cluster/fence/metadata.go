package fence

import (
	"context"
	"encoding/xml"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// metadata is what an agent says about itself.
type metadata struct {
	Parameters []parameter `xml:"parameters>parameter"`
	Actions    []struct {
		Name string `xml:"name,attr"`
		// Automatic is "1" for agents that cut a node off from its storage or network
		// when it is switched "off": its power stays on.
		Automatic string `xml:"automatic,attr"`
	} `xml:"actions>action"`
}

// parameter is one option of an agent.
type parameter struct {
	Name      string `xml:"name,attr"`
	Required  string `xml:"required,attr"`
	Obsoletes string `xml:"obsoletes,attr"` // its older name, which is still taken
	Content   struct {
		Type    string  `xml:"type,attr"`
		Default *string `xml:"default,attr"`
		Options []struct {
			Value string `xml:"value,attr"`
		} `xml:"option"`
	} `xml:"content"`
}

// Inspect compares d with what its agent says about itself, without reaching for the device: it refuses unknown
// options, which agents only warn of, missing ones, values of the wrong kind, and agents whose off
// proves nothing: without status, or leaving the power on. Meant for the time when a device is
// configured; Off does without. The error wraps ErrConfig if d is at fault.
func (f *Fencer) Inspect(ctx context.Context, d Device) error {
	if err := d.Validate(); err != nil {
		return err
	}
	out, diag := &tail{max: maxMetadata}, &tail{max: maxOutput}
	// The options stay here: they have nothing to do with the answer.
	code, err := f.run(ctx, Device{Name: d.Name, Agent: d.Agent, Timeout: d.Timeout}, "metadata", out, diag)
	if err != nil {
		return fmt.Errorf("%s: metadata: %w", d, err)
	}
	if code != exitDone {
		return fmt.Errorf("%s: metadata: exit code %d: %s", d, code, lastLine(diag.text(), d.Options))
	}
	m, err := parseMetadata(out.text())
	if err != nil {
		return fmt.Errorf("%s: metadata: %w", d, err)
	}
	if faults := m.faults(d); len(faults) > 0 {
		return fmt.Errorf("%w %q: %s", ErrConfig, d.Name, strings.Join(faults, "; "))
	}
	return nil
}

func parseMetadata(text []byte) (metadata, error) {
	var m metadata
	if err := xml.Unmarshal(text, &m); err != nil {
		return metadata{}, fmt.Errorf("read XML: %w", err)
	}
	return m, nil
}

// faults lists what does not fit, with remedies.
func (m metadata) faults(d Device) []string {
	out := m.unfit(d.Agent)
	known := map[string]parameter{}
	for _, p := range m.Parameters {
		known[p.Name] = p
	}
	for _, name := range slices.Sorted(maps.Keys(d.Options)) {
		p, ok := known[name]
		if !ok {
			out = append(out, fmt.Sprintf("option %q: %s does not know it: `%s -o metadata` lists those it does", name, d.Agent,
				d.Agent))
		} else if why := p.refuses(d.Options[name]); why != "" {
			out = append(out, fmt.Sprintf("option %q: %s", name, why))
		}
	}
	for _, p := range m.Parameters {
		if p.Required == "1" && p.Name != "action" && p.Content.Default == nil && !m.old(p) && !p.given(d.Options) {
			out = append(out, fmt.Sprintf("option %q is missing: %s needs it", p.Name, d.Agent))
		}
	}
	return out
}

// unfit says why the agent as such cannot confirm that a node is off.
func (m metadata) unfit(agent string) []string {
	var off, status, cuts bool
	for _, a := range m.Actions {
		off = off || a.Name == "off"
		status = status || a.Name == "status"
		cuts = cuts || a.Name == "on" && a.Automatic == "1"
	}
	switch {
	case !off || !status:
		return []string{fmt.Sprintf("agent %s cannot switch off and ask whether it is off: use one for the power of the node",
			agent)}
	case cuts:
		return []string{fmt.Sprintf("agent %s cuts a node off from shared storage or the network and leaves it running: "+
			"use one for the power of the node", agent)}
	}
	return nil
}

// old reports whether p is only the older name of another.
func (m metadata) old(p parameter) bool {
	return slices.ContainsFunc(m.Parameters, func(newer parameter) bool { return newer.Obsoletes == p.Name })
}

// given reports whether p is set, under its own name or its older one.
func (p parameter) given(o Options) bool {
	_, now := o[p.Name]
	_, before := o[p.Obsoletes]
	return now || before
}

// refuses says what is wrong with a value; agents ignore it or take it for something else.
func (p parameter) refuses(value string) string {
	switch p.Content.Type {
	case "boolean":
		switch strings.ToLower(value) {
		case "1", "yes", "on", "true":
			return ""
		case "0", "no", "off", "false":
			if p.Content.Default != nil && *p.Content.Default == "1" {
				return ""
			}
			return "leave it out to say no: most agents only look whether it is there"
		}
		return "must be 1, or 0"
	case "integer", "second":
		if strings.Trim(value, "0123456789") != "" {
			return "must be a whole number"
		}
	case "select":
		var all []string
		for _, o := range p.Content.Options {
			if o.Value == value {
				return ""
			}
			all = append(all, o.Value)
		}
		return "must be one of " + strings.Join(all, ", ")
	}
	return ""
}
