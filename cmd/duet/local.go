package main

import (
	"context"
	"encoding/json"
	"os"

	"duet/cluster/doctor"
	"duet/cluster/doctor/host"
	"duet/cluster/membership"
	"duet/cluster/support"
)

// Local looks at this computer where its daemon cannot be asked.
type Local interface {
	// Look gathers the facts; dir is the node's directory, which may not be there yet.
	Look(ctx context.Context, dir string) doctor.Facts
	// Collect gathers what helps somebody who is to help.
	Collect(ctx context.Context, dir string) support.Part
}

// thisHost is the Local of a real computer.
type thisHost struct{ version string }

// Look sees less than a daemon does, and says so in Unlooked. It takes each port of the node for a moment, to find
// out whether a daemon could have it, and connects to the other nodes; ctx bounds that.
func (h thisHost) Look(ctx context.Context, dir string) doctor.Facts {
	f := doctor.Facts{Version: h.version, Host: host.Look(host.Config{}), Hypervisor: host.Libvirt(ctx)}
	f.Host.Spaces = host.Spaces(dir, nil)
	f.Node, _ = os.Hostname() // "" is what it is
	f.Unlooked = []string{"QEMU's user and label, and the memory of the VMs: only duetd asks libvirt, and does not answer"}
	c, err := membership.Load(dir)
	if err != nil {
		f.Unlooked = append(f.Unlooked, "ports and other nodes: "+err.Error())
		return f
	}
	f.Node = string(c.Self)
	f.Ports, f.Routes = host.Ports(c), host.Routes(c)
	host.Reach(ctx, f.Routes)
	if len(f.Routes) > 0 {
		f.Unlooked = append(f.Unlooked,
			"heartbeats over UDP, and whether the other nodes reach this one: duetd does not answer here")
	}
	return f
}

// Collect is for root. The part is sealed: the secrets that were found in the node's directory are hidden in all of
// it, so nothing may be added to it afterwards.
func (h thisHost) Collect(ctx context.Context, dir string) support.Part {
	p, secrets := support.Collect(ctx, dir)
	if text, err := json.MarshalIndent(h.Look(ctx, dir), "", "  "); err == nil { // it holds nothing that cannot be written
		p.Add("facts.json", text)
	}
	p.Leave("status, metrics, VMs and the other nodes: duetd does not answer here")
	p.Seal(secrets)
	return p
}
