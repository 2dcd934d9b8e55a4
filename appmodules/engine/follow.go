package engine

import (
	"context"
	"errors"
	"fmt"
	"io"

	"duet/appmodules"
	"duet/blockrepl"
	"duet/cluster"
)

// The secondary side of volumes: what follows a primary on the peer.

// openSecondary opens the images for the peer's primary.
func (v *volumes) openSecondary() {
	v.close()
	v.session++
	e := v.e
	var all []*volume
	for _, c := range v.disks {
		vol, err := v.secondary(c)
		if err != nil {
			v.closeAll(all)
			e.event(appmodules.StorageFailed, err.Error())
			return
		}
		all = append(all, vol)
	}
	v.set(all)
}

func (v *volumes) secondary(c appmodules.Volume) (*volume, error) {
	sec, err := v.e.cfg.Storage.Secondary(c)
	if err != nil {
		return nil, fmt.Errorf("volume %s: %w", c.Target, err)
	}
	return &volume{cfg: c, sec: sec}, nil
}

// heard: the primary has sent something within the detection time. Its connection is
// one more heartbeat path, and the only one that does not break when power is lost.
func (v *volumes) heard() bool {
	for _, vol := range v.all {
		if vol.sec != nil && v.e.rt.Now().Sub(vol.sec.Heard()) < v.e.cfg.Times.Detection {
			return true
		}
	}
	return false
}

// adopt makes every secondary durably complete.
func (v *volumes) adopt(tickets map[string]blockrepl.Ticket) error {
	if len(v.all) == 0 {
		return errors.New("the volumes are closed")
	}
	ctx, cancel := v.e.rt.WithTimeout(v.e.ctx, quickTime)
	defer cancel()
	for _, vol := range v.all {
		t, ok := tickets[vol.cfg.Target]
		if !ok || vol.sec == nil || !vol.attached || t.Link != vol.link {
			return fmt.Errorf("volume %s is not connected", vol.cfg.Target)
		}
		if err := vol.sec.Complete(ctx, t); err != nil {
			return fmt.Errorf("volume %s: %w", vol.cfg.Target, err)
		}
	}
	return nil
}

// OnAttach is a replication connection from the peer's primary. It takes in over
// and returns when the connection has ended or was refused.
func (e *Engine) OnAttach(ctx context.Context, in Incoming) error {
	hello := in.Hello()
	var vol *volume
	var complete, diverged bool
	var session uint64
	var refusal string
	err := e.call(ctx, func() {
		refusal = e.acceptable(hello)
		if refusal != "" {
			return
		}
		rec := e.rec.Learn(e.self, cluster.Epoch(hello.Epoch), cluster.NodeID(hello.Node))
		if !rec.IsComplete() {
			rec = rec.Outdated() // the answer says so, and the peer may go on alone
		}
		if !e.save(rec) {
			refusal = "this node cannot save its record"
			return
		}
		for _, have := range e.vols.all {
			if have.cfg.ID == hello.Lineage.Volume && have.sec != nil {
				vol = have
			}
		}
		if vol == nil {
			refusal = "this node has no such volume"
			return
		}
		if diverged = vol.sec.Lineage().Compare(hello.Lineage) == blockrepl.Diverged; diverged && e.holds() {
			refusal = "both nodes wrote without each other and split_brain is hold: `duet second " + e.cfg.Module.Name + " --node " + string(e.self) + " --yes` keeps this node's version aside and lets the peer's win"
			return
		}
		complete, session = e.rec.IsComplete(), e.vols.session
		if !complete && e.m.Phase == appmodules.Standby {
			e.step(appmodules.FollowLost, "it has come back at a newer epoch")
		}
		// From here on a ticket of the attachment before is void, although its session may
		// not have ended: this one has just been told whether the copy is complete.
		vol.conn, vol.link = in, hello.Link
		e.vols.onFollowed(vol)
	})
	if err != nil || refusal != "" {
		if err != nil {
			refusal = err.Error()
		}
		st := e.State()
		return in.Refuse(blockrepl.Refusal{Epoch: uint64(st.Record.Epoch), Holder: string(st.Record.Holder), Reason: refusal})
	}
	if diverged {
		if err := vol.sec.Yield(ctx, e.divergence(vol, hello)); err != nil {
			e.cfg.Logger.Error("split brain: the copies stay apart", "module", e.cfg.Module.Name, "volume", vol.cfg.Target, "err", err)
			return in.Refuse(blockrepl.Refusal{Epoch: hello.Epoch, Holder: hello.Node, Reason: err.Error()})
		}
		e.event(appmodules.Diverged, "")
	}
	err = vol.sec.Serve(ctx, in, complete)
	e.post(func() { e.vols.onFollowLost(session, vol, in, err) })
	return err
}

// acceptable says why a primary is refused; empty if it is not.
func (e *Engine) acceptable(h blockrepl.Hello) string {
	switch {
	case e.retiring:
		return "this node stops following"
	case e.m.Phase != appmodules.Following && e.m.Phase != appmodules.Standby:
		r, s := e.m.Display()
		return fmt.Sprintf("the module is %s (%s) on %s", r, s, e.self)
	case cluster.NodeID(h.Node) != e.peer:
		return fmt.Sprintf("%s is not the peer of this module", h.Node)
	case cluster.Epoch(h.Epoch) < e.rec.Epoch:
		return fmt.Sprintf("rule 2: epoch %d is over", h.Epoch)
	case cluster.Epoch(h.Epoch) == e.rec.Epoch && e.rec.Holder != e.peer:
		return fmt.Sprintf("rule 2: epoch %d is held by %s", h.Epoch, e.rec.Holder)
	}
	return ""
}

// holds: the policy wants a human to decide which version wins, and none has yet.
func (e *Engine) holds() bool {
	return e.cfg.Module.Policy.SplitBrain == appmodules.SplitHold && !e.yield
}

// divergence describes a volume that the peer's version is to win. Any goroutine.
func (e *Engine) divergence(vol *volume, hello blockrepl.Hello) Divergence {
	d := Divergence{Module: e.cfg.Module.Name, Epoch: cluster.Epoch(hello.Epoch), Loser: vol.sec.Lineage(), Winner: hello.Lineage}
	peer, _ := e.PeerState()
	for _, v := range peer.Status.Volumes {
		if v.Target == vol.cfg.Target {
			d.WinnerWritten = v.Written
		}
	}
	return d
}

func (v *volumes) onFollowed(vol *volume) {
	vol.attached = true
	if !v.everyAttached() {
		return
	}
	v.linked, v.e.followed = true, true
	v.e.step(appmodules.Followed, "")
	if v.e.rec.IsComplete() {
		v.e.step(appmodules.Completed, "")
	}
}

func (v *volumes) onFollowLost(session uint64, vol *volume, conn io.Closer, err error) {
	if v.session != session || vol.conn != conn {
		return // closed, or the primary has connected again meanwhile
	}
	vol.attached, vol.conn = false, nil
	if errors.Is(err, blockrepl.ErrLocalCopy) {
		v.e.step(appmodules.StorageFailed, fmt.Sprintf("volume %s: %v", vol.cfg.Target, err))
		return
	}
	for _, other := range v.all {
		if other.conn != nil {
			_ = other.conn.Close() // the link is one: it ends for all volumes
		}
	}
	if v.linked {
		v.linked = false
		text := ""
		if err != nil {
			text = err.Error()
		}
		v.e.step(appmodules.FollowLost, text)
	}
}
