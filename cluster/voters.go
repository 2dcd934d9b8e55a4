package cluster

import (
	"fmt"
	"slices"
)

// Witness says how the nodes of a cluster reach a witness and know it.
type Witness struct {
	Addr string `json:"addr"` // host:port, its name for admins too
	Key  string `json:"key"`  // fingerprint of its public key, hexadecimal
	ID   string `json:"id"`   // of this cluster's registration there
}

// Voters are the witnesses of a cluster (cluster/DESIGN.md). Its zero value has none. Every node
// stores them, and of two states the newer one holds. A Voters is not changed once made.
//
// A spare takes the place of the voter in two steps: Joined, after which a right to write
// needs the yes of both, and Settled, after which the spare is the voter. All nodes store
// the first before any stores the second, so nodes are at most one step apart, and what
// two of them need always has a voter in common (joint consensus, as Raft does it).
type Voters struct {
	Version uint64 `json:"version"`
	// Active are those that all have to say yes: one, two between the steps, or none.
	Active []Witness `json:"active,omitempty"`
	// Spares take the place of the voter when it is gone, the first that answers.
	Spares []Witness `json:"spares,omitempty"`
}

// Newer reports whether v replaces o. Versions are equal only if two admins changed the
// voters at the same instant on two nodes; then one of the changes wins, the same everywhere.
func (v Voters) Newer(o Voters) bool {
	if v.Version != o.Version {
		return v.Version > o.Version
	}
	return fmt.Sprint(v) > fmt.Sprint(o)
}

// Equal reports whether both are the same state.
func (v Voters) Equal(o Voters) bool { return !v.Newer(o) && !o.Newer(v) }

// All lists every witness, the active ones first.
func (v Voters) All() []Witness { return slices.Concat(v.Active, v.Spares) }

// Find returns the witness at an address.
func (v Voters) Find(addr string) (Witness, bool) {
	all := v.All()
	i := slices.IndexFunc(all, func(w Witness) bool { return w.Addr == addr })
	if i < 0 {
		return Witness{}, false
	}
	return all[i], true
}

// With adds w: as the voter if there is none, else as the last spare.
func (v Voters) With(w Witness) Voters {
	if len(v.Active) == 0 {
		return Voters{v.Version + 1, []Witness{w}, v.Spares}
	}
	return Voters{v.Version + 1, v.Active, append(slices.Clone(v.Spares), w)}
}

// Without forgets w. The voter is better replaced first: without one the nodes decide
// by other means.
func (v Voters) Without(w Witness) Voters {
	other := func(have Witness) bool { return have == w }
	return Voters{v.Version + 1, slices.DeleteFunc(slices.Clone(v.Active), other),
		slices.DeleteFunc(slices.Clone(v.Spares), other)}
}

// Joined makes the spare w a voter beside the present one.
func (v Voters) Joined(w Witness) Voters {
	spares := slices.DeleteFunc(slices.Clone(v.Spares), func(have Witness) bool { return have == w })
	return Voters{v.Version + 1, append(slices.Clone(v.Active), w), spares}
}

// Settled makes the newest voter the only one; the others become spares.
func (v Voters) Settled() Voters {
	last := len(v.Active) - 1
	return Voters{v.Version + 1, v.Active[last:], append(slices.Clone(v.Spares), v.Active[:last]...)}
}
