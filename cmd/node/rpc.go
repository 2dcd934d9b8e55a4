package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"duet/appmodules"
	"duet/appmodules/engine"
	"duet/appmodules/protect"
	"duet/cluster"
	"duet/cluster/mux"
	"duet/cluster/support"
	"duet/console/api"
	"duet/vmmanager"
)

// maxRequest bounds a request of another node, in bytes.
const maxRequest = 16 << 20

// command is an operator's command forwarded to the node that has to act.
type command struct {
	Event appmodules.Event `json:"event"`
	Yes   bool             `json:"yes"`
}

// rpcHandler serves what nodes ask of each other; the mux lets members in only.
func (n *Node) rpcHandler() http.Handler {
	h := http.NewServeMux()
	h.Handle("POST /modules/{name}/ask", onMirror(n, func(ctx context.Context, m *module, a cluster.Ask) (cluster.Answer, error) {
		if from := mux.PeerFrom(ctx); a.Node != from {
			return cluster.Answer{}, fmt.Errorf("%w: %s asks in the name of %s", api.ErrInvalid, from, a.Node)
		}
		return m.engine.OnAsk(ctx, a)
	}))
	h.Handle("POST /modules/{name}/handover", onMirror(n, func(ctx context.Context, m *module, v engine.Handover) (none, error) {
		return none{}, m.engine.OnHandover(ctx, v)
	}))
	h.Handle("POST /modules/{name}/complete", onMirror(n, func(ctx context.Context, m *module, v engine.Complete) (none, error) {
		return none{}, m.engine.OnComplete(ctx, v)
	}))
	h.Handle("POST /modules/{name}/tell", onMirror(n, func(_ context.Context, m *module, v told) (told, error) {
		n.fitness.hear(m.cfg.Name, v.Notices)
		return told{m.engine.OnTell(v.State), n.fitness.of(m.cfg.Name)}, nil
	}))
	h.Handle("POST /modules/{name}/define", onMirror(n, func(ctx context.Context, m *module, v engine.Definition) (none, error) {
		return none{}, m.engine.OnDefine(ctx, v)
	}))
	h.Handle("POST /modules/{name}/command", onModule(n, func(ctx context.Context, m *module, v command) (none, error) {
		return none{}, n.order(ctx, m.cfg.Name, v.Event, v.Yes)
	}))
	h.Handle("POST /modules/{name}/log", onModule(n, func(_ context.Context, m *module, count int) ([]api.LogEntry, error) {
		return m.journal.Last(count)
	}))
	h.Handle("POST /modules/{name}/config", onModule(n, func(ctx context.Context, _ *module, s stored) (none, error) {
		return none{}, n.applyConfig(ctx, s)
	}))
	h.Handle("POST /modules", handle(n, func(ctx context.Context, nm newModule) (none, error) { return none{}, n.createModule(ctx, nm) }))
	h.Handle("POST /modules/{name}/remove", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		handle(n, func(ctx context.Context, v removal) (none, error) {
			return none{}, n.dropModule(ctx, r.PathValue("name"), mux.PeerFrom(ctx), v)
		}).ServeHTTP(w, r)
	}))
	h.Handle("POST /judge", handle(n, func(ctx context.Context, j judging) ([]vmmanager.Finding, error) { return n.judgeNew(ctx, j) }))
	h.Handle("POST /images", handle(n, func(ctx context.Context, v hosting) ([]protect.Made, error) { return n.host(ctx, v) }))
	h.Handle("POST /images/drop", handle(n, func(_ context.Context, v []protect.Made) (none, error) { return none{}, n.dropImages(v) }))
	h.Handle("POST /versions", handle(n, func(context.Context, any) ([]api.Version, error) { return n.versions() }))
	h.Handle("POST /versions/{name}/drop", onName(n, func(ctx context.Context, id string) error { return n.DropVersion(ctx, id) }))
	h.Handle("POST /versions/{name}", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		handle(n, func(ctx context.Context, _ any) (api.Difference, error) {
			return n.Difference(ctx, r.PathValue("name"))
		}).ServeHTTP(w, r)
	}))
	h.Handle("POST /doctor", handle(n, func(ctx context.Context, _ any) (reply, error) { return n.facts(ctx), nil }))
	h.Handle("POST /support", handle(n, func(ctx context.Context, _ any) (support.Part, error) { return n.part(ctx), nil }))
	h.Handle("POST /fence", handle(n, func(ctx context.Context, s fenceSet) (none, error) { return none{}, n.applyFence(ctx, s) }))
	h.Handle("POST /voters", handle(n, func(ctx context.Context, v cluster.Voters) (cluster.Voters, error) { return n.takeVoters(ctx, v) }))
	h.Handle("POST /members/{name}/remove", onName(n, func(_ context.Context, name string) error { return n.dropMember(cluster.NodeID(name)) }))
	h.Handle("POST /members", handle(n, func(_ context.Context, m cluster.Member) (none, error) { return none{}, n.addMember(m) }))
	return h
}

type none struct{}

// handle decodes a request, calls fn and encodes what it returns.
func handle[In, Out any](n *Node, fn func(context.Context, In) (Out, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var in In
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxRequest)).Decode(&in); err != nil {
			fail(w, fmt.Errorf("%w: %v", api.ErrInvalid, err))
			return
		}
		out, err := fn(r.Context(), in)
		if err != nil {
			fail(w, err)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		if err := json.NewEncoder(w).Encode(out); err != nil {
			n.log.Debug("answer not sent", "err", err)
		}
	})
}

// onModule is handle for the module named in the path.
func onModule[In, Out any](n *Node, fn func(context.Context, *module, In) (Out, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		handle(n, func(ctx context.Context, in In) (out Out, err error) {
			m, err := n.module(r.PathValue("name"))
			if err != nil {
				return out, err
			}
			return fn(ctx, m, in)
		}).ServeHTTP(w, r)
	})
}

// onMirror is onModule for what only mirrors understand.
func onMirror[In, Out any](n *Node, fn func(context.Context, *module, In) (Out, error)) http.Handler {
	return onModule(n, func(ctx context.Context, m *module, in In) (out Out, err error) {
		if err := m.isMirror(); err != nil {
			return out, err
		}
		return fn(ctx, m, in)
	})
}

func onName(n *Node, fn func(context.Context, string) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		handle(n, func(ctx context.Context, _ any) (none, error) { return none{}, fn(ctx, r.PathValue("name")) }).ServeHTTP(w, r)
	})
}

// fail answers with an error and its kind.
func fail(w http.ResponseWriter, err error) {
	f := failure{Text: err.Error()}
	for kind, sentinel := range kinds() {
		if errors.Is(translate(err), sentinel) {
			f.Kind = kind
		}
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusUnprocessableEntity)
	_ = json.NewEncoder(w).Encode(f) // the caller sees a broken answer if this fails
}

// translate gives the errors of the engine the API's kinds.
func translate(err error) error {
	switch {
	case errors.Is(err, engine.ErrRefused):
		return &remoteError{api.ErrConflict, err.Error()}
	case errors.Is(err, engine.ErrConfirm):
		return &remoteError{api.ErrConfirm, err.Error()}
	}
	return err
}
