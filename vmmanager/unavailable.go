package vmmanager

import "context"

// Unavailable is a Hypervisor and Protector that refuses everything with Err,
// which wraps ErrUnavailable or ErrUnsupported: a node whose hypervisor is not
// installed still takes part in its cluster. Watch waits until its context ends.
type Unavailable struct{ Err error }

var (
	_ Hypervisor = Unavailable{}
	_ Protector  = Unavailable{}
)

// State refuses.
func (u Unavailable) State(context.Context, string) (State, error) { return Absent, u.Err }

// Definition refuses.
func (u Unavailable) Definition(context.Context, string) (Definition, error) {
	return Definition{}, u.Err
}

// Define refuses.
func (u Unavailable) Define(context.Context, Definition) error { return u.Err }

// Start refuses.
func (u Unavailable) Start(context.Context, string) error { return u.Err }

// Shutdown refuses.
func (u Unavailable) Shutdown(context.Context, string) error { return u.Err }

// Kill refuses.
func (u Unavailable) Kill(context.Context, string) error { return u.Err }

// Watch sends nothing.
func (u Unavailable) Watch(ctx context.Context) (<-chan Event, error) {
	ch := make(chan Event)
	context.AfterFunc(ctx, func() { close(ch) })
	return ch, nil
}

// Rewire refuses.
func (u Unavailable) Rewire(Definition, []Endpoint) (Definition, error) { return Definition{}, u.Err }

// Adopt refuses.
func (u Unavailable) Adopt(context.Context, string, Endpoint, func(done, total int64)) error {
	return u.Err
}

// Release refuses.
func (u Unavailable) Release(context.Context, string, Disk, func(done, total int64)) error {
	return u.Err
}

// Restore refuses.
func (u Unavailable) Restore(Definition, Definition, []Disk) (Definition, error) {
	return Definition{}, u.Err
}

// Harden refuses.
func (u Unavailable) Harden(Definition, []string) (Definition, error) { return Definition{}, u.Err }

// Refit refuses.
func (u Unavailable) Refit(context.Context, string, Edit, func() error) error { return u.Err }

// Reload refuses.
func (u Unavailable) Reload(context.Context, string, Edit, func() error) error { return u.Err }

// Wake refuses.
func (u Unavailable) Wake(context.Context, string) error { return u.Err }

// Strays refuses.
func (u Unavailable) Strays(context.Context, string, []Endpoint) ([]Stray, error) { return nil, u.Err }

// Grant refuses.
func (u Unavailable) Grant(context.Context, string, []string) error { return u.Err }

// Runs refuses.
func (u Unavailable) Runs(string, int) error { return u.Err }

// Endpoints refuses.
func (u Unavailable) Endpoints(context.Context, string) ([]Endpoint, error) { return nil, u.Err }

// On finds none.
func (u Unavailable) On(Definition) []Endpoint { return nil }

// Obstacles finds none.
func (u Unavailable) Obstacles(Definition) []Finding { return nil }

// Judge refuses.
func (u Unavailable) Judge(context.Context, Definition) ([]Finding, error) { return nil, u.Err }

// Undefine refuses.
func (u Unavailable) Undefine(context.Context, string) error { return u.Err }
