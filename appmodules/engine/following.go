package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"duet/appmodules"
	"duet/blockrepl"
	"duet/cluster"
)

// following are all disks of a module on the node that follows the peer's primary. It is
// made when they are opened, and its context ends with the role. Owned by the engine's
// goroutine.
type following struct {
	e      *Engine
	ctx    context.Context // ends with the role
	end    context.CancelFunc
	uses   []*use
	all    []*follower // nil: not open yet, or not any more
	linked bool        // the primary is attached to every volume
	adopts bool        // the volumes are being made durably complete, as long as their disks take
}

// follower is one open disk of them.
type follower struct {
	Secondary
	cfg      appmodules.Volume
	conn     io.Closer // of the newest attachment, to end it
	link     uint64    // Hello.Link of that, which the ticket must have
	attached bool      // it is served, as far as this goroutine was told
}

// newFollowing returns a role without volumes: nobody can attach to it.
func newFollowing(e *Engine) *following {
	f := &following{e: e}
	f.ctx, f.end = context.WithCancel(e.ctx)
	return f
}

// follow opens the images for the peer's primary. It ends in StorageFailed, or the primary attaches.
func (e *Engine) follow() {
	e.dismiss()
	if !e.noteOpen() {
		return
	}
	f := newFollowing(e)
	e.following = f
	all := make([]*follower, len(e.cfg.Module.Replicated()))
	f.uses = e.shelf.take(func(i int, c appmodules.Volume) (disk, error) {
		sec, err := e.cfg.Storage.Secondary(c)
		if err != nil {
			return nil, err
		}
		all[i] = &follower{Secondary: sec, cfg: c}
		return all[i], nil
	}, func(err error) {
		switch {
		case e.following != f:
		case err != nil:
			e.step(appmodules.StorageFailed, err.Error())
		default:
			f.all = all
			f.configure()
		}
	})
}

// configure gives open volumes what the policy says now. It is called when they open, too, as that of leading is.
func (f *following) configure() {
	for _, vol := range f.all {
		vol.SetLocalBudget(f.e.diskBudget())
	}
}

// close ends the role: when it returns nothing more is written or acknowledged.
// The images are closed in their own time.
func (f *following) close() {
	f.end()
	opened := len(f.all) > 0
	f.linked, f.all = false, nil
	f.e.following = newFollowing(f.e)
	f.e.following.end()
	f.e.release(f.uses, opened)
}

// heard: the primary has sent something within the detection time. Its connection is
// one more heartbeat path, and the only one that does not break when power is lost.
func (f *following) heard() bool {
	for _, vol := range f.all {
		if f.e.rt.Now().Sub(vol.Heard()) < f.e.cfg.Times.Detection {
			return true
		}
	}
	return false
}

// adopt returns what makes every volume durably complete, for another goroutine: it
// takes as long as the disks do, and is for the attachments of this moment.
func (f *following) adopt(tickets map[string]blockrepl.Ticket) (func(context.Context) error, error) {
	if len(f.all) == 0 {
		return nil, errors.New("the volumes are not open")
	}
	if f.adopts {
		return nil, errors.New("its disks are at it")
	}
	for _, vol := range f.all {
		if t, ok := tickets[vol.cfg.Target]; !ok || !vol.attached || t.Link != vol.link {
			return nil, fmt.Errorf("volume %s is not connected", vol.cfg.Target)
		}
	}
	f.adopts = true
	all, e := f.all, f.e
	return func(ctx context.Context) error {
		return beside(ctx, e.rt, func() error {
			defer e.post(func() { f.adopts = false })
			for _, vol := range all {
				if err := vol.Complete(ctx, tickets[vol.cfg.Target]); err != nil {
					return fmt.Errorf("volume %s: %w", vol.cfg.Target, err)
				}
			}
			return nil
		})
	}, nil
}

// adopted: the attachments that the tickets are for have lasted until now. A volume that was attached anew meanwhile
// may have been told that it is not complete, and its primary may have gone on alone by that word.
func (f *following) adopted(tickets map[string]blockrepl.Ticket) bool {
	return len(f.all) > 0 && !slices.ContainsFunc(f.all, func(vol *follower) bool {
		return !vol.attached || tickets[vol.cfg.Target].Link != vol.link
	})
}

// OnAttach is a replication connection from the peer's primary. It takes in over
// and returns when the connection has ended or was refused. The caller has made sure that in comes from the node that
// its Hello names. Before the volume is served this node's record knows durably of the primary's epoch; a refusal says
// what it knows, from which a primary that was deposed learns that (rule 2). A version that lost a split brain is set
// aside durably before anything of it is overwritten (rule 11).
func (e *Engine) OnAttach(ctx context.Context, in Incoming) error {
	hello := in.Hello()
	var a attach
	refuse := func(why string) error {
		st := e.State()
		return in.Refuse(blockrepl.Refusal{Epoch: uint64(st.Record.Epoch), Holder: string(st.Record.Holder), Reason: why})
	}
	if err := e.soon(ctx, func(claim func() bool) { a = e.accept(in, claim) }); err != nil {
		return refuse(err.Error()) // a is not ours yet
	}
	if a.refusal != "" {
		return refuse(a.refusal)
	}
	if a.diverged {
		if err := a.vol.Yield(ctx, e.divergence(a.vol, hello)); err != nil {
			e.cfg.Logger.Error("split brain: the copies stay apart", "module", e.cfg.Module.Name, "volume", a.vol.cfg.Target,
				"err", err)
			return in.Refuse(blockrepl.Refusal{Epoch: hello.Epoch, Holder: hello.Node, Reason: err.Error()})
		}
		e.event(appmodules.Diverged, "")
	}
	err := a.vol.Serve(ctx, in, a.complete)
	e.post(func() { a.to.onFollowLost(a.vol, in, err) })
	return err
}

// attach is what became of a replication connection.
type attach struct {
	refusal            string // empty: it is served
	to                 *following
	vol                *follower
	complete, diverged bool // this copy is complete at the primary's epoch; it has what the primary's lacks
}

// accept judges a primary; claim returns false if it was refused meanwhile. The order is: refuse what nothing is
// learned from, save what this node knows by now, claim, and only then change what is attached: who gave up waiting
// refuses the connection itself.
func (e *Engine) accept(in Incoming, claim func() bool) attach {
	hello, f := in.Hello(), e.following
	if refusal := e.acceptable(hello); refusal != "" {
		return attach{refusal: refusal}
	}
	rec := e.rec.Learn(e.self, cluster.Epoch(hello.Epoch), cluster.NodeID(hello.Node))
	if !rec.IsComplete() {
		rec = rec.Outdated() // the answer says so, and the peer may go on alone
	}
	if !e.save(rec) || !claim() {
		return attach{refusal: "this node cannot save its record"}
	}
	vol := f.volume(hello.Lineage.Volume)
	if vol == nil {
		return attach{refusal: f.absent()}
	}
	diverged := vol.Lineage().Compare(hello.Lineage) == blockrepl.Diverged
	if diverged && e.holds() {
		return attach{refusal: "both nodes wrote without each other and split_brain is hold: `duet second " +
			e.cfg.Module.Name + " --node " + string(e.self) + " --yes` keeps this node's version aside and lets the peer's win"}
	}
	a := attach{to: f, vol: vol, complete: e.rec.IsComplete(), diverged: diverged}
	if !a.complete && e.m.Phase == appmodules.Standby {
		e.step(appmodules.FollowLost, "it has come back at a newer epoch")
	}
	// From here on a ticket of the attachment before is void, although its session may
	// not have ended: this one has just been told whether the copy is complete.
	vol.conn, vol.link = in, hello.Link
	f.onFollowed(vol)
	return a
}

// absent says why there is no volume to attach to.
func (f *following) absent() string {
	if len(f.all) > 0 {
		return "this node has no such volume"
	}
	if text := f.e.shelf.waits(); text != "" {
		return text
	}
	return "this node is opening its volumes"
}

// volume is the open one with the data of id; nil: there is none.
func (f *following) volume(id string) *follower {
	for _, vol := range f.all {
		if vol.cfg.ID == id {
			return vol
		}
	}
	return nil
}

// acceptable says why a primary is refused; empty if it is not. It changes nothing.
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
func (e *Engine) divergence(vol *follower, hello blockrepl.Hello) Divergence {
	d := Divergence{Module: e.cfg.Module.Name, Epoch: cluster.Epoch(hello.Epoch), Loser: vol.Lineage(),
		Winner: hello.Lineage}
	peer, _ := e.PeerState()
	for _, v := range peer.Status.Volumes {
		if v.Target == vol.cfg.Target {
			d.WinnerWritten = v.Written
		}
	}
	return d
}

// onFollowed notes that a volume is attached; with the last one the machine is told. A copy that is complete by its
// record is so at once: there is nothing to bring in step.
func (f *following) onFollowed(vol *follower) {
	vol.attached = true
	if slices.ContainsFunc(f.all, func(vol *follower) bool { return !vol.attached }) {
		return
	}
	e := f.e
	f.linked = true
	e.step(appmodules.Followed, "")
	if e.rec.IsComplete() {
		e.step(appmodules.Completed, "")
	}
}

// onFollowLost ends the link of all volumes when the session of one has ended. A failure of the local copy ends the
// role instead: a copy that cannot be written must not count as one that follows.
func (f *following) onFollowLost(vol *follower, conn io.Closer, err error) {
	if f.e.following != f || vol.conn != conn {
		return // closed, or the primary has connected again meanwhile
	}
	vol.attached, vol.conn = false, nil
	if errors.Is(err, blockrepl.ErrLocalCopy) || errors.Is(err, blockrepl.ErrHung) {
		f.e.step(appmodules.StorageFailed, f.e.diskFailure(vol.cfg, err))
		return
	}
	for _, other := range f.all {
		if other.conn != nil {
			_ = other.conn.Close() // the link is one: it ends for all volumes
		}
	}
	if f.linked {
		f.linked = false
		f.e.step(appmodules.FollowLost, f.e.said(err))
	}
}
