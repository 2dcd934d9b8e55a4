package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"

	"duet/appmodules/engine"
	"duet/appmodules/mirror"
	"duet/appmodules/orders"
	"duet/appmodules/protect"
	"duet/appmodules/registry"
	"duet/cluster"
	"duet/cluster/control"
	"duet/cluster/fencing"
	"duet/cluster/mux"
	"duet/cluster/support"
	"duet/cluster/survey"
	"duet/console/api"
	"duet/vmmanager"
	"duet/vmmanager/fitness"
	"duet/vmmanager/images"
)

// newPlane carries what nodes ask of each other. The names of Kinds cross the wire: they stay as they are. A kind
// that the other release does not know arrives as an error of no kind, with its words.
func newPlane(c func() cluster.Config, m *mux.Mux, release string, log *slog.Logger) *control.Plane {
	return control.New(control.Config{
		Cluster: c, Release: release, Transport: m.HTTPTransport(serviceControl), Logger: log, Translate: translate,
		Unreachable: api.ErrUnreach, Invalid: api.ErrInvalid,
		Kinds: map[string]error{
			"not-found": api.ErrNotFound, "invalid": api.ErrInvalid, "conflict": api.ErrConflict,
			"confirm": api.ErrConfirm, "unreachable": api.ErrUnreach,
			"unfit": engine.ErrUnfit,
		},
	})
}

// rpcHandler serves what nodes ask of each other, to members only (control.Plane). Who asks is known by the
// certificate of the connection (mux.PeerFrom), never by what the request says. Every request may arrive twice,
// also while the first one is at work; what it carries was checked before (control.Checked). It is served from
// before this node's engines run: those let their callers wait.
//
// The paths are known to the release before (testdata): a new one is refused there with cluster.ErrOlder.
func (n *Node) rpcHandler() http.Handler {
	h := http.NewServeMux()
	h.Handle("POST /modules/{name}/ask", onMirror(n,
		func(ctx context.Context, m *registry.Entry, a cluster.Ask) (cluster.Answer, error) {
			if from := mux.PeerFrom(ctx); a.Node != from {
				return cluster.Answer{}, fmt.Errorf("%w: %s asks in the name of %s", api.ErrInvalid, from, a.Node)
			}
			return m.Engine.OnAsk(ctx, a)
		}))
	h.Handle("POST /modules/{name}/handover",
		onMirror(n, func(ctx context.Context, m *registry.Entry, v engine.Handover) (none, error) {
			return none{}, m.Engine.OnHandover(ctx, v)
		}))
	h.Handle("POST /modules/{name}/complete",
		onMirror(n, func(ctx context.Context, m *registry.Entry, v engine.Complete) (none, error) {
			return none{}, m.Engine.OnComplete(ctx, v)
		}))
	// Twice a second, and at once after a change: both sides' states, and what each host says of the VM.
	h.Handle("POST /modules/{name}/tell", onMirror(n,
		func(_ context.Context, m *registry.Entry, v mirror.Told) (mirror.Told, error) {
			return n.mirrors.OnTell(m.Engine, v), nil
		}))
	h.Handle("POST /modules/{name}/standing", onMirror(n, n.standing))
	h.Handle("POST /modules/{name}/define", onMirror(n,
		func(ctx context.Context, m *registry.Entry, v engine.Definition) (none, error) {
			return none{}, m.Engine.OnDefine(ctx, v)
		}))
	h.Handle("POST /modules/{name}/command",
		onModule(n, func(ctx context.Context, m *registry.Entry, v orders.Message) (none, error) {
			return none{}, n.Order(ctx, m.Module.Name, v.Order(), v.Yes)
		}))
	h.Handle("POST /modules/{name}/log", onModule(n,
		func(_ context.Context, m *registry.Entry, count int) ([]api.LogEntry, error) {
			return m.Journal.Last(min(max(count, 0), maxLog))
		}))
	h.Handle("POST /modules/{name}/config", onModule(n,
		func(ctx context.Context, m *registry.Entry, s registry.Stored) (none, error) {
			return none{}, n.Edited(ctx, m.Module.Name, s)
		}))
	h.Handle("POST /modules", handle(n, func(ctx context.Context, nm registry.Fresh) (none, error) {
		return none{}, n.Create(ctx, mux.PeerFrom(ctx), nm, n.images.MadeFor)
	}))
	h.Handle("POST /modules/{name}/remove", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		handle(n, func(ctx context.Context, v removal) (none, error) {
			return none{}, n.dropModule(ctx, r.PathValue("name"), mux.PeerFrom(ctx), v)
		}).ServeHTTP(w, r)
	}))
	h.Handle("POST /judge", handle(n, func(ctx context.Context, j fitness.Question) ([]vmmanager.Finding, error) {
		return n.fitness.Answer(ctx, mux.PeerFrom(ctx), j)
	}))
	h.Handle("POST /images", handle(n, func(ctx context.Context, v images.Hosting) ([]protect.Made,
		error) {
		return n.images.Host(ctx, v)
	}))
	// Of version 1, which lists images; newer nodes undo by the ID of the request (hostings).
	h.Handle("POST /images/drop", handle(n, func(_ context.Context, v []protect.Made) (none, error) {
		return none{}, n.images.DropListed(v)
	}))
	h.Handle("POST /hostings/{name}/drop", onName(n,
		func(_ context.Context, id string) error { return n.images.DropHosted(id) }))
	h.Handle("POST /versions", handle(n, func(context.Context, any) ([]api.Version, error) { return n.Archive.Here() }))
	h.Handle("POST /versions/{name}/drop", onName(n,
		func(ctx context.Context, id string) error { return n.DropVersion(ctx, id) }))
	h.Handle("POST /versions/{name}", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		handle(n, func(ctx context.Context, _ any) (api.Difference, error) {
			return n.Difference(ctx, r.PathValue("name"))
		}).ServeHTTP(w, r)
	}))
	h.Handle("POST /doctor", handle(n, func(ctx context.Context, _ any) (survey.Reply, error) {
		return n.Facts(ctx), nil
	}))
	h.Handle("POST /support", handle(n, func(ctx context.Context, _ any) (support.Part, error) {
		return n.Part(ctx), nil
	}))
	h.Handle("POST /fence", handle(n, func(ctx context.Context, s fencing.Set) (none, error) {
		return none{}, n.Desk.Take(ctx, s)
	}))
	h.Handle("POST /voters", handle(n, func(ctx context.Context, v cluster.Voters) (cluster.Voters,
		error) {
		return n.voting.Take(ctx, v)
	}))
	h.Handle("POST /voters/apart", handle(n, func(ctx context.Context, host string) (none, error) {
		return none{}, n.voting.Apart(ctx, host)
	}))
	// Of an older release; newer nodes bring both sides together (members/meet).
	h.Handle("POST /members/{name}/remove", onName(n,
		func(_ context.Context, name string) error { return n.Gone(cluster.NodeID(name)) }))
	h.Handle("POST /members/meet", handle(n,
		func(_ context.Context, x cluster.Exchange) (cluster.Exchange, error) { return n.Met(x) }))
	h.Handle("POST /members", handle(n, func(_ context.Context, f cluster.Fact) (none, error) {
		return none{},
			n.Learn(f)
	}))
	return n.plane.Handler(h)
}

// maxLog bounds the transitions that a node asks another one for, whatever number that names.
const maxLog = 10000

// none is a request or an answer that says nothing: {} on the wire.
type none struct{}

// handle serves one request. fn's context does not end with its caller, but after a while (control.Handle).
func handle[In, Out any](n *Node, fn func(context.Context, In) (Out, error)) http.Handler {
	return control.Handle(n.plane, fn)
}

// onModule is handle for the module named in the path, if it is the one that the caller means: an engine says in
// the query which identity that is, since the name may have been used again, and so do commands and logs. Standings
// are told by name, with the identity in the answer; a node of version 1 says none.
func onModule[In, Out any](n *Node, fn func(context.Context, *registry.Entry, In) (Out, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		handle(n, func(ctx context.Context, in In) (out Out, err error) {
			m, err := n.Find(r.PathValue("name"))
			if err != nil {
				return out, err
			}
			if id := r.URL.Query().Get("id"); id != "" && id != m.Module.Identity() { // version 1 says none
				return out, fmt.Errorf("%w: module %s on %s is another one than that of %s: `duet vm release %s` on either node",
					api.ErrConflict, m.Module.Name, n.self(), mux.PeerFrom(ctx), m.Module.Name)
			}
			return fn(ctx, m, in)
		}).ServeHTTP(w, r)
	})
}

// onMirror is onModule for what only mirrors understand. m.Engine is not nil in fn.
func onMirror[In, Out any](n *Node, fn func(context.Context, *registry.Entry, In) (Out, error)) http.Handler {
	return onModule(n, func(ctx context.Context, m *registry.Entry, in In) (out Out, err error) {
		m, err = n.Mirror(m.Module.Name)
		if err != nil {
			return out, err
		}
		return fn(ctx, m, in)
	})
}

// onName serves a request that names what is meant in its path and says no more.
func onName(n *Node, fn func(context.Context, string) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		handle(n, func(ctx context.Context, _ any) (none, error) {
			return none{},
				fn(ctx, r.PathValue("name"))
		}).ServeHTTP(w, r)
	})
}

// translate gives the errors of other rooms the API's kinds, with their words as they are. What has a kind already,
// or none, stays as it is.
func translate(err error) error {
	switch {
	case errors.Is(err, engine.ErrRefused):
		return &control.Error{Kind: api.ErrConflict, Text: err.Error()}
	case errors.Is(err, engine.ErrConfirm):
		return &control.Error{Kind: api.ErrConfirm, Text: err.Error()}
	}
	if kind := ofVoting(err); kind != nil {
		return &control.Error{Kind: kind, Text: err.Error()}
	}
	return err
}
