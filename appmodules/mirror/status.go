package mirror

import (
	"fmt"
	"time"

	"duet/appmodules"
	"duet/appmodules/engine"
	"duet/cluster"
	"duet/console/api"
	"duet/vmmanager"
)

// Unknown is the role of a node that has not answered yet.
const Unknown = "UNKNOWN"

// nodeState turns the engine's words into the API's. What a node of another release tells is shown as it is told: a
// role that is not known is UNKNOWN.
func nodeState(node, module string, s engine.Status) api.NodeState {
	out := api.NodeState{Node: node, Role: s.Role.String(), Status: s.Status.String(), Why: s.Why, Since: s.Since,
		Epoch: uint64(s.Epoch), Holder: string(s.Holder), Complete: s.Complete, Stopped: s.Stopped, VM: s.Workload,
		Passing: api.Passing{Stopping: s.Phase == appmodules.Stopping, KillIn: s.KillIn.Seconds()}}
	if s.Came.Why != "" && string(s.Holder) == node {
		out.Came = &api.Arrival{Why: s.Came.Why}
		if !s.Came.At.IsZero() {
			out.Came.At = &s.Came.At
		}
	}
	if s.Phase == appmodules.Running && s.Workload == "paused" {
		out.Why = paused(s)
	}
	// That the guest shut itself down is no news to whoever chose that the module stops then. What was done past Duet,
	// or failed, nobody has asked Duet for.
	if s.Stopped && s.Ended != vmmanager.ByGuest.String() {
		out.Ended = s.Ended
	}
	for _, x := range s.Notices {
		level := "warning"
		if x.Alarm {
			level = "alarm"
		}
		out.Notices = append(out.Notices, api.Notice{Level: level, Code: x.Code, Text: x.Text, Remedy: x.Remedy})
	}
	for _, v := range s.Volumes {
		out.Volumes = append(out.Volumes, volumeStatus(module, v))
		if v.Problem != "" {
			out.Why += "; " + v.Problem
		}
	}
	return out
}

// Awaited is until when an engine waits for the return of a silent node that left on purpose; nil: of no other.
func Awaited(p cluster.PeerView) *time.Time {
	if !p.Leaving {
		return nil
	}
	until := p.Silent.Add(engine.DefaultTimes(0).LeaveGrace)
	return &until
}

// awaits adds to the sentence of a node that follows one that has stopped what that waits for: nothing here ends it.
func awaits(n *api.NodeState, module string, peer api.NodeState) {
	if n.Role == appmodules.Second.String() && n.Status == appmodules.Transient.String() &&
		peer.Role == appmodules.Stop.String() && peer.Status == appmodules.NotReady.String() && peer.Heard() {
		n.Why += fmt.Sprintf("; %s is STOP on %s, and this copy follows again when it is started there: `duet start %s`",
			module, peer.Node, module)
	}
}

// paused is the sentence of a workload that somebody keeps from running. Its reason is that of the last transition, as
// that it runs, which a pause is none of.
func paused(s engine.Status) string {
	text := "it is paused"
	for _, x := range s.Notices {
		if x.Code == "paused" {
			text = x.Text
		}
	}
	return text + "; before that: " + s.Why
}

// volumeStatus is a volume with the work that goes on with it. An ETA of -1 is not known.
func volumeStatus(module string, v engine.VolumeStatus) api.VolumeStatus {
	out := api.VolumeStatus{Name: module + "/" + v.Target, Target: v.Target, Path: v.Path, Size: v.Size, State: v.State,
		Generation: v.Generation, DirtyBytes: v.Dirty, Compared: v.Compared, Moved: v.Moved,
		LagMicros: v.Lag.Microseconds(), WriteOps: uint64(v.Stats.Writes), ReadOps: uint64(v.Stats.Reads)}
	out.Proven, out.Written, out.Proof = known(v.Proven), known(v.Written), proofStatus(v.Proof)
	switch {
	case v.Verifying:
		out.Sync = &api.Sync{Kind: "verify", Total: v.Size, Compared: v.Verified, ETA: -1}
	case v.ToCompare > 0:
		out.Sync = &api.Sync{Kind: "resync", Total: v.Compared + v.ToCompare, Compared: v.Compared, Moved: v.Moved,
			Differed: v.Moved, Rate: int64(v.Rate), ETA: v.ETA.Seconds()}
		if v.Rate == 0 {
			out.Sync.ETA = -1
		}
	}
	return out
}

// known is nil for a time that is not known.
func known(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}
