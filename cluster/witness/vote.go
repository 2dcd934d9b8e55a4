package witness

import (
	"fmt"
	"sync"

	"duet/cluster"
)

// voter is the name under which a witness votes; no node can have it.
const voter cluster.NodeID = "the witness"

func voteKey(id, module string) string { return votePrefix + id + "/" + module }

// ask answers a node by the rules of cluster.Record. Only a yes that is
// durable is returned; an error is no vote.
func (s *Server) ask(p party, a cluster.Ask) (cluster.Answer, error) {
	if err := checkAsk(p.node, a); err != nil {
		return cluster.Answer{}, err
	}
	ans, err := s.askOnce(p, a)
	if err != nil {
		return cluster.Answer{}, err
	}
	// Without a lock: a log may be a pipe that nobody reads, and others vote meanwhile.
	s.log.Info("asked for the right to write", "cluster", p.Name, "module", a.Module, "node", a.Node, "epoch", a.Epoch,
		"yes", ans.Yes, "why", ans.Why)
	return ans, nil
}

// askOnce votes while nothing of the cluster can be forgotten, and no node be removed: a record that is taken away
// under a vote would come back by its Save.
func (s *Server) askOnce(p party, a cluster.Ask) (cluster.Answer, error) {
	p.forgetting.RLock()
	defer p.forgetting.RUnlock()
	if err := p.present(); err != nil {
		return cluster.Answer{}, err
	}
	seat, err := p.seat(a.Module)
	if err != nil {
		return cluster.Answer{}, err
	}
	return s.vote(seat, voteKey(p.ID, a.Module), a)
}

// checkAsk refuses what Record.Vote does not expect. The name of the module becomes part of a key in the store.
func checkAsk(node cluster.NodeID, a cluster.Ask) error {
	switch {
	case a.Node != node:
		return fmt.Errorf("%w: %s asks in the name of %q", ErrWrongNode, node, a.Node)
	case !isName(a.Module):
		return fmt.Errorf("%w: %q is not the name of a module", ErrBadRequest, a.Module)
	case a.Epoch == 0:
		return fmt.Errorf("%w: epoch 0 is never granted", ErrBadRequest)
	case a.Complete > a.Epoch:
		return fmt.Errorf("%w: data that are complete at epoch %d need no epoch %d", ErrBadRequest, a.Complete, a.Epoch)
	}
	return nil
}

// vote reads, decides and saves under the lock of the module. A yes is saved even if the record does not change:
// what was read may be left from a save that failed. It waits for the store with the seat held, for a moment or as
// long as the disk is stuck; the caller does not wait longer than its context, and may ask again: a yes is given
// again to the same ask.
func (s *Server) vote(seat *sync.Mutex, key string, a cluster.Ask) (cluster.Answer, error) {
	seat.Lock()
	defer seat.Unlock()
	var r cluster.Record
	if _, err := s.cfg.Store.Load(key, &r); err != nil {
		return cluster.Answer{}, fmt.Errorf("%w: %w", ErrStore, err)
	}
	if err := r.Valid(voter); err != nil {
		return cluster.Answer{}, fmt.Errorf("%w: it is damaged: %w", ErrStore, err)
	}
	after, ans := r.Vote(voter, a)
	if !ans.Yes {
		return ans, nil
	}
	if err := s.cfg.Store.Save(key, after); err != nil {
		return cluster.Answer{}, fmt.Errorf("%w: %w", ErrStore, err)
	}
	ans.Why = fmt.Sprintf("%s promised epoch %d to %s", voter, a.Epoch, a.Node)
	return ans, nil
}

// forgetModule removes the record of a module that was released. It may come again, and for a module that never was.
func (s *Server) forgetModule(p party, module string) error {
	if !isName(module) {
		return fmt.Errorf("%w: %q is not the name of a module", ErrBadRequest, module)
	}
	if err := s.dropVote(p, module); err != nil {
		return err
	}
	s.log.Info("module is forgotten", "cluster", p.Name, "module", module) // without a lock, as below
	return nil
}

// dropVote keeps votes of the whole cluster out while the store deletes: one seat would not be enough, for it is
// taken out of the map with it, and who waits for it would vote beside whoever makes a new one.
func (s *Server) dropVote(p party, module string) error {
	p.forgetting.Lock()
	defer p.forgetting.Unlock()
	if err := p.present(); err != nil {
		return err
	}
	if err := s.cfg.Store.Delete(voteKey(p.ID, module)); err != nil {
		return fmt.Errorf("%w: delete vote: %w", ErrStore, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.seats, module)
	return nil
}
