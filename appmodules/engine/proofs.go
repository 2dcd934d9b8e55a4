package engine

import (
	"context"
	"slices"
	"sync"

	"duet/appmodules"
	"duet/blockrepl/proof"
)

// proofs are the ledgers of a module's volumes, by target. Safe for concurrent use.
type proofs struct {
	e     *Engine
	mu    sync.Mutex
	known map[string]proof.Ledger
	saved map[string]proof.Ledger
	under map[string]bool // a save is under way: nothing overtakes it
}

// proofKey begins the key of a ledger in the store; the target of the volume follows.
const proofKey = "proof/"

// newProofs reads what was kept. What cannot be read is proven anew.
func newProofs(e *Engine) *proofs {
	p := &proofs{e: e, under: make(map[string]bool)}
	p.known, p.saved = make(map[string]proof.Ledger), make(map[string]proof.Ledger)
	for _, v := range e.cfg.Module.Volumes() {
		var l proof.Ledger
		found, err := e.cfg.Store.Load(proofKey+v.Target, &l)
		switch {
		case err != nil:
			e.cfg.Logger.Warn("what was proven of a volume cannot be read",
				"module", e.cfg.Module.Name, "volume", v.Target, "err", err)
		case found && l.Of(v.ID, v.Size):
			p.known[v.Target], p.saved[v.Target] = l, l
		}
	}
	return p
}

// of is what is known of a volume; begun now if nothing is.
func (p *proofs) of(v appmodules.Volume) proof.Ledger {
	return p.change(v, func(*proof.Ledger) {})
}

// change changes what is known of a volume, and returns it. fn runs under the lock and gets a copy whose slices others
// share: it replaces them and does not write into them, as the methods of a Ledger do. It is saved by save, later.
func (p *proofs) change(v appmodules.Volume, fn func(*proof.Ledger)) proof.Ledger {
	p.mu.Lock()
	defer p.mu.Unlock()
	l, ok := p.known[v.Target]
	if !ok {
		l = proof.New(v.ID, v.Size, p.e.rt.Now())
	}
	fn(&l)
	p.known[v.Target] = l
	return l
}

// save keeps the ledger of a volume durably if it says much more than what is kept, and no
// save of it is under way. It waits for the metadata disk, within ctx.
func (p *proofs) save(ctx context.Context, target string) {
	if !p.due(target, true) {
		return
	}
	err := beside(ctx, p.e.rt, func() error {
		p.mu.Lock()
		l := p.known[target]
		p.mu.Unlock()
		err := p.e.cfg.Store.Save(proofKey+target, l)
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.under[target] = false; err == nil {
			p.saved[target] = l
		}
		return err
	})
	if err != nil && ctx.Err() == nil {
		p.e.cfg.Logger.Warn("what is proven of a volume cannot be saved",
			"module", p.e.cfg.Module.Name, "volume", target, "err", err)
	}
}

// due: a ledger is to be saved; begin: by the caller.
func (p *proofs) due(target string, begin bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	due := !p.under[target] && p.known[target].Moved(p.saved[target])
	if due && begin {
		p.under[target] = true
	}
	return due
}

// hear takes over what the peer, which leads, has proven. Of the engine's goroutine.
func (p *proofs) hear(volumes []VolumeStatus) {
	if p.e.leading.isOpen() {
		return
	}
	for _, v := range p.e.cfg.Module.Volumes() {
		i := slices.IndexFunc(volumes, func(st VolumeStatus) bool { return st.Target == v.Target })
		if i < 0 || volumes[i].Proof == nil || !volumes[i].Proof.Ledger.Of(v.ID, v.Size) {
			continue
		}
		p.change(v, func(l *proof.Ledger) { *l = volumes[i].Proof.Ledger })
		if p.due(v.Target, false) {
			p.e.spawn(func(ctx context.Context) { p.save(ctx, v.Target) })
		}
	}
}
