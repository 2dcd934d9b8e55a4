package protect

import (
	"context"
	"fmt"
	"strings"

	"duet/cluster"
	"duet/console/api"
	"duet/vmmanager"
)

// Notices are findings in the API's words, in the order of vmmanager.Worst; node is where they were found. nil: none.
func Notices(node cluster.NodeID, found []vmmanager.Finding) []api.Notice {
	var out []api.Notice
	for _, f := range vmmanager.Worst(found) {
		out = append(out, api.Notice{Level: string(f.Level), Code: f.Code, Node: string(node), Text: f.String(),
			Remedy: f.Remedy})
	}
	return out
}

// Refusal is the refused ones among notices in one error of that kind; nil: there are none.
func Refusal(kind error, what string, all []api.Notice) error {
	var texts []string
	for _, x := range all {
		if x.Level != string(vmmanager.Refused) {
			continue
		}
		text := x.Text
		if x.Remedy != "" {
			text += ": " + x.Remedy
		}
		texts = append(texts, text)
	}
	if len(texts) == 0 {
		return nil
	}
	return fmt.Errorf("%w: %s: %s", kind, what, strings.Join(texts, "; "))
}

// judge has both nodes say whether they can have the images, with what makes them, and the peer judge the definition
// that it would get: on its volumes, whose sockets need not be there yet. Nothing is made.
func (p *protection) judge(ctx context.Context) error {
	rewired, err := p.rewired()
	if err != nil {
		return err
	}
	if _, err := p.w.cfg.Volumes.Choose(p.Module, p.places[string(p.w.self())]); err != nil {
		return err
	}
	found, err := p.w.cfg.Peers.Judge(ctx, p.peer(), rewired, p.Module, p.places[string(p.peer())])
	p.notices = Notices(p.peer(), found)
	return err
}

// fit refuses what the peer would refuse of a VM.
func (p *protection) fit(ctx context.Context) error {
	if !p.Module.Kind.Defined() {
		return nil
	}
	if err := p.judge(ctx); err != nil {
		return err
	}
	return Refusal(api.ErrConflict, fmt.Sprintf("%s would not run VM %s", p.peer(), p.Definition.Name), p.notices)
}

// noticed is what the peer had to say beside refusals, in sentences.
func (p *protection) noticed() string {
	var b strings.Builder
	for _, x := range p.notices {
		fmt.Fprintf(&b, ". %s on %s: %s", x.Level, x.Node, x.Text)
		if x.Remedy != "" {
			b.WriteString(": " + x.Remedy)
		}
	}
	return b.String()
}
