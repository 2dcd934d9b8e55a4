// Package apitest is a Backend in memory for tests of whatever speaks to one: a
// cluster of two nodes whose state changes by orders only, at once.
//
// It is for package api's handlers, for the client and for cmd/duet: what a call answers is fixed, and what was
// asked is recorded as text. Nothing takes time, no goroutine runs. backend.go answers, orders.go carries out,
// sample.go is the cluster that it begins with, help.go what doctor and support say.
package apitest

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"duet/console/api"
)

// Now is the time at which the sample was taken.
func Now() time.Time { return time.Date(2026, 3, 14, 15, 9, 26, 0, time.UTC) }

// Backend answers from its fields and records what was asked. The fields may be
// set before it is used; Set changes the status while it is.
type Backend struct {
	mu    sync.Mutex // of st, asked and Steps
	st    api.Status
	asked []string

	// Fail, if set, is asked before every call and its error is the answer.
	Fail func(call string) error
	// Steps are what Task answers, one after the other, the last one for ever.
	Steps []api.Task
	// Sick is what Doctor finds, Zip what Support writes.
	Sick api.Doctor
	Zip  []byte
	// YAML is what Config answers; empty: a few lines.
	YAML string
	// Deaf: orders are taken and nothing follows.
	Deaf bool
}

// New makes a Backend with the status of Sample.
func New() *Backend { return &Backend{st: Sample(), Steps: Work(), Sick: Healthy(), Zip: Zip()} }

// Set replaces the status. s is not changed afterwards: orders copy what they change.
func (b *Backend) Set(s api.Status) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.st = s
}

// Asked lists the calls so far, as "act web01 stop {Node:beta Yes:false}".
func (b *Backend) Asked() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]string(nil), b.asked...)
}

// ask records a call and says whether it is to fail. Task is not recorded.
func (b *Backend) ask(format string, args ...any) error {
	call := fmt.Sprintf(format, args...)
	b.mu.Lock()
	b.asked = append(b.asked, call)
	b.mu.Unlock()
	if b.Fail != nil {
		return b.Fail(call)
	}
	return nil
}

// module is ErrNotFound, with the names that there are, for a module that is not.
func (b *Backend) module(name string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, err := b.st.Module(name)
	return err
}

// Status answers with what was set. The verdict is that of Now, whatever the clock says.
func (b *Backend) Status(context.Context) (api.Status, error) {
	if err := b.ask("status"); err != nil {
		return api.Status{}, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.st.Judged(Now()), nil
}

// Log answers with two transitions of any known module.
func (b *Backend) Log(_ context.Context, module string, n int) ([]api.LogEntry, error) {
	if err := b.ask("log %s %d", module, n); err != nil {
		return nil, err
	}
	if err := b.module(module); err != nil {
		return nil, err
	}
	all := []api.LogEntry{
		{Time: Now().Add(-2 * time.Minute), Node: "alpha", Module: module, From: "WAIT/Transient", To: "ALONE/Ready",
			On: "granted", Why: "the witness granted epoch 4 to alpha"},
		{Time: Now().Add(-time.Minute), Node: "beta", Module: module, From: "WAIT/NotReady", To: "SECOND/Transient",
			On: "peer", Why: "alpha is primary: the data here follow it"},
	}
	return all[max(0, len(all)-n):], nil
}

// Act accepts everything but prim on beta without Yes.
func (b *Backend) Act(_ context.Context, module string, a api.Action, r api.ActionRequest) (api.ActionResult, error) {
	if err := b.ask("act %s %s %+v", module, a, r); err != nil {
		return api.ActionResult{}, err
	}
	if err := b.module(module); err != nil {
		return api.ActionResult{}, err
	}
	if a == api.Prim && r.Node == "beta" && !r.Yes {
		return api.ActionResult{}, fmt.Errorf("the data on beta are not complete:\n"+
			"  alpha: epoch 4, last write 15:09:20, complete\n"+
			"  beta: epoch 3, last write 14:02:11, 1.2 GiB may differ\n%w", api.ErrConfirm)
	}
	b.carryOut(module, a, r.Node)
	return api.ActionResult{Module: module, Said: fmt.Sprintf("has the order to %s", a)}, nil
}

// Protect begins Steps.
func (b *Backend) Protect(_ context.Context, vm string, r api.ProtectRequest) (api.Task, error) {
	return b.begin(b.ask("protect %s %+v", vm, r))
}

// Install begins Steps.
func (b *Backend) Install(_ context.Context, r api.InstallRequest) (api.Task, error) {
	return b.begin(b.ask("install %+v", r))
}

// CheckProtect refuses the VM lonely.
func (b *Backend) CheckProtect(_ context.Context, vm string, r api.ProtectRequest) (api.ProtectCheck, error) {
	c := api.ProtectCheck{VM: vm, Module: vm, Peer: "beta", OK: vm != "lonely", Notices: []api.Notice{
		{Level: "note", Code: "uefi-variables", Node: "beta", Text: "UEFI variables: they are not replicated yet"}}}
	if !c.OK {
		c.Notices = append([]api.Notice{{Level: "refused", Code: "network-inactive", Node: "beta",
			Text:   "interface 1: network lan is not active",
			Remedy: "`virsh net-start lan`"}}, c.Notices...)
	}
	return c, b.ask("check protect %s %+v", vm, r)
}

// Release begins Steps.
func (b *Backend) Release(_ context.Context, module string, r api.ReleaseRequest) (api.Task, error) {
	if err := b.ask("release %s %+v", module, r); err != nil {
		return api.Task{}, err
	}
	return b.begin(b.module(module))
}

// Return begins Steps.
func (b *Backend) Return(_ context.Context, module string) (api.Task, error) {
	if err := b.ask("return %s", module); err != nil {
		return api.Task{}, err
	}
	return b.begin(b.module(module))
}

// Verify begins Steps.
func (b *Backend) Verify(_ context.Context, volume string, repair bool) (api.Task, error) {
	if err := b.ask("verify %s %v", volume, repair); err != nil {
		return api.Task{}, err
	}
	module, _, _ := strings.Cut(volume, "/")
	return b.begin(b.module(module))
}

// begin answers with the task t1, the only one, unless err is set.
func (b *Backend) begin(err error) (api.Task, error) {
	if err != nil {
		return api.Task{}, err
	}
	return b.Task(context.Background(), "t1")
}

// Task answers with the next of Steps.
func (b *Backend) Task(_ context.Context, id string) (api.Task, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if id != "t1" || len(b.Steps) == 0 {
		return api.Task{}, fmt.Errorf("task %s: %w: finished tasks are kept for an hour", id, api.ErrNotFound)
	}
	t := b.Steps[0]
	if len(b.Steps) > 1 {
		b.Steps = b.Steps[1:]
	}
	return t, nil
}

// TaskList is the one of the first of Steps.
func (b *Backend) TaskList(context.Context) ([]api.Task, error) {
	if err := b.ask("tasks"); err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.Steps[:min(1, len(b.Steps))]), nil
}

// Config answers with YAML for any known module.
func (b *Backend) Config(_ context.Context, module string) (api.Config, error) {
	if err := b.ask("config %s", module); err != nil {
		return api.Config{}, err
	}
	return api.Config{Module: module, Version: 3, Changed: Now(), By: "alpha",
		YAML: cmp.Or(b.YAML, "name: "+module+"\nkind: vm\npolicy:\n  restart:\n    max: 3\n")}, b.module(module)
}

// Check refuses YAML without a name.
func (b *Backend) Check(_ context.Context, yaml string) error {
	if err := b.ask("check %q", yaml); err != nil {
		return err
	}
	if !strings.Contains(yaml, "name:") {
		return fmt.Errorf("line 1: name: missing: %w", api.ErrInvalid)
	}
	return nil
}

// Apply accepts what Check accepts.
func (b *Backend) Apply(ctx context.Context, yaml string, base uint64) (api.Config, error) {
	if err := b.ask("apply to %d", base); err != nil {
		return api.Config{}, err
	}
	if err := b.Check(ctx, yaml); err != nil {
		return api.Config{}, err
	}
	return api.Config{Module: "web01", Version: 4, Changed: Now(), By: "alpha", YAML: yaml}, nil
}

// Diverged answers with one version.
func (b *Backend) Diverged(context.Context) ([]api.Version, error) {
	return []api.Version{version()}, b.ask("versions")
}

// Difference answers with two ranges.
func (b *Backend) Difference(_ context.Context, id string) (api.Difference, error) {
	return api.Difference{Version: version(), Bytes: 3 << 16,
			Ranges: []api.Range{{Offset: 1 << 20, Length: 1 << 16}, {Offset: 5 << 30, Length: 2 << 16}}},
		b.ask("difference %s", id)
}

func version() api.Version {
	first, last := Now().Add(-time.Hour), Now().Add(-time.Minute)
	return api.Version{ID: "260314-150926-k7", Node: "beta", Module: "web01", Target: "vda", Size: 20 << 30,
		Saved:  1 << 20,
		Loser:  api.Side{Node: "beta", FirstWrite: &first, LastWrite: &last},
		Winner: api.Side{Node: "alpha", FirstWrite: &first},
		Epoch:  8, Begun: Now(), Until: Now().Add(7 * 24 * time.Hour)}
}

// ExportVersion answers with the first step of the work.
func (b *Backend) ExportVersion(_ context.Context, id, path string) (api.Task, error) {
	return b.Steps[0], b.ask("export %s %s", id, path)
}

// DropVersion records that it was asked.
func (b *Backend) DropVersion(_ context.Context, id string) error { return b.ask("drop %s", id) }

// AddWitness answers with a witness that lives.
func (b *Backend) AddWitness(_ context.Context, r api.WitnessRequest) (api.WitnessStatus, error) {
	return api.WitnessStatus{Addr: r.Addr, Alive: true}, b.ask("add witness %s %s", r.Addr, r.Token)
}

// Fences answers with one device.
func (b *Backend) Fences(context.Context) ([]api.FenceStatus, error) {
	return []api.FenceStatus{{Node: "beta", Levels: [][]api.FenceDevice{{{Name: "bmc", Agent: "fence_ipmilan",
		Options: map[string]string{"ip": "10.0.9.2", "password": "***"}, Timeout: "30s"}}}}}, b.ask("fences")
}

// SetFence records what it was told.
func (b *Backend) SetFence(_ context.Context, node string, levels [][]api.FenceDevice) error {
	return b.ask("fence %s %v", node, levels)
}

// TestFence finds everything in order.
func (b *Backend) TestFence(_ context.Context, node string) (api.FenceStatus, error) {
	return api.FenceStatus{Node: node, Result: "bmc: on, and it can be switched off"}, b.ask("test fence %s", node)
}

// RemoveNode removes beta only, where db has its second copy.
func (b *Backend) RemoveNode(_ context.Context, node string) (api.NodeRemoval, error) {
	if err := b.ask("remove node %s", node); err != nil {
		return api.NodeRemoval{}, err
	}
	if node != "beta" {
		return api.NodeRemoval{}, fmt.Errorf("%w: node %q: there are alpha, beta", api.ErrNotFound, node)
	}
	return api.NodeRemoval{Node: node, Modules: []string{"db"}}, nil
}

// PingTargets answers with one.
func (b *Backend) PingTargets(context.Context) (api.PingTargets, error) {
	return api.PingTargets{Targets: []string{"10.0.0.254"}}, b.ask("ping")
}

// SetPing records what it was told; beta does not know it yet.
func (b *Backend) SetPing(_ context.Context, targets []string) (api.PingTargets, error) {
	return api.PingTargets{Targets: targets, Unaware: []string{"beta"}}, b.ask("ping %v", targets)
}

// RemoveWitness records that it was asked.
func (b *Backend) RemoveWitness(_ context.Context, addr string) error {
	return b.ask("remove witness %s", addr)
}

// NewToken answers with a fixed token.
func (b *Backend) NewToken(_ context.Context, life time.Duration) (api.Token, error) {
	if err := b.ask("token %v", life); err != nil {
		return api.Token{}, err
	}
	return api.Token{Token: "duet1.c2FtcGxl", Expires: Now().Add(life)}, nil
}
