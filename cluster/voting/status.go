package voting

import (
	"errors"
	"slices"

	"duet/cluster/witness"
	"duet/console/api"
)

// Status is a witness for admins, as this node has seen it: since when it is silent, and what that costs. It does not
// wait.
func (p *Panel) Status(h *Handle) api.WitnessStatus {
	spare := slices.Contains(p.cfg.Book.Config().Voters.Spares, h.Witness())
	since, why := h.Silent()
	out := api.WitnessStatus{Addr: h.Name(), Spare: spare, Alive: why == nil}
	switch said := witness.Refused(why); {
	case why == nil:
		return out
	case errors.Is(why, witness.ErrRemoved):
		out.Alive, out.Why = true, "it answers, and does not vote for this node, which was removed from the cluster"
		return out
	case said != "" && spare:
		out.Why = "it answers and refuses this node, and cannot take the voter's place: " + said
	case said != "":
		out.Why = "it answers and refuses this node, which waits if it loses its peer now: " + said
	case spare:
		out.Why = "it cannot take the voter's place: " + h.Why()
	default:
		out.Why = "nothing stops because of it, but a node that loses its peer now waits: " + h.Why()
	}
	out.Silent = &since
	return out
}
