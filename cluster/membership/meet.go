package membership

import (
	"context"
	"crypto/rand"
	"errors"

	"duet/cluster"
)

// Meet has all members that answer know the same of the membership, and takes the next step of the exchange of the
// key of heartbeats when all have stored the one before. The node with the lowest name does so; for others it does
// nothing. news is whether this node's configuration has changed. It blocks on the members, one after the other. One
// that does not answer is in err and stops nobody but the exchange of the key, which needs all. Two nodes that both
// take themselves for the lowest, in a partition, take no step: each misses a member.
func (b *Book) Meet(ctx context.Context, alive func(cluster.NodeID) bool,
	call func(context.Context, cluster.NodeID, cluster.Exchange) (cluster.Exchange, error)) (news bool, err error) {
	c := b.Config()
	for _, m := range c.Members {
		if m.Node < c.Self && alive(m.Node) {
			return false, nil
		}
	}
	var errs []error
	same := true
	for _, m := range c.Members {
		if m.Node == c.Self {
			continue
		}
		if !alive(m.Node) {
			same = false // it may still write with the old key
			continue
		}
		theirs, err := call(ctx, m.Node, b.Config().Exchange())
		if err == nil {
			err = theirs.Check()
		}
		if err != nil {
			errs, same = append(errs, err), false
			continue
		}
		learnt, err := b.take(func(c *cluster.Config) bool { return c.Take(theirs) })
		errs = append(errs, err)
		news = news || learnt
		same = same && theirs.GossipStep == b.Config().GossipStep
	}
	if !same || news {
		return news, errors.Join(errs...)
	}
	stepped, err := b.take(func(c *cluster.Config) bool {
		next, ok := c.NextKeys(freshKey)
		if ok {
			*c = next
		}
		return ok
	})
	return stepped, errors.Join(append(errs, err)...)
}

// take is Change that tells whether anything changed. An error means that nothing changed in memory.
func (b *Book) take(alter func(c *cluster.Config) bool) (changed bool, err error) {
	_, err = b.Change(func(c *cluster.Config) bool {
		changed = alter(c)
		return changed
	})
	return changed && err == nil, err
}

func freshKey() []byte {
	key := make([]byte, 32)
	rand.Read(key) // never fails
	return key
}
