package stage

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"

	"duet/appmodules/workload"
)

// Serve has a Room take orders on the socket in its directory until ctx ends. What goes on ends with whoever asked for
// it: the daemon that died begins anew. The stages stay as they are.
func Serve(ctx context.Context, cfg Config) error {
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return err
	}
	path := filepath.Join(cfg.Dir, SocketName)
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	ln, err := net.Listen("unix", path)
	if err != nil {
		return err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return err
	}
	h := &handler{room: New(cfg), log: cfg.Logger, turns: map[string]chan struct{}{}}
	s := &http.Server{Handler: h, MaxHeaderBytes: 4 << 10,
		BaseContext: func(net.Listener) context.Context { return ctx }}
	stop := context.AfterFunc(ctx, func() { s.Close() })
	defer stop()
	if err := s.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// handler carries orders out.
type handler struct {
	room *Room
	log  *slog.Logger

	mu    sync.Mutex
	turns map[string]chan struct{} // of each stage that had an order, see turn
}

// turn waits until no other order of a stage goes on, within ctx, and returns what ends the turn. Who has cancelled an
// order hears nothing more of it and gives the next one at once: without turns a start that goes on for one moment more
// would bring up something after a kill that found nothing.
func (h *handler) turn(ctx context.Context, stage string) (end func(), err error) {
	h.mu.Lock()
	turn, is := h.turns[stage]
	if !is {
		turn = make(chan struct{}, 1)
		h.turns[stage] = turn
	}
	h.mu.Unlock()
	select {
	case turn <- struct{}{}:
	case <-ctx.Done():
		return nil, fmt.Errorf("an earlier order has not ended: %w", ctx.Err())
	}
	end = func() { <-turn }
	if ctx.Err() != nil { // nobody waits for it any more
		end()
		return nil, ctx.Err()
	}
	return end, nil
}

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var o order
	var a answer
	err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxOrder)).Decode(&o)
	if err == nil {
		a, err = h.obey(r.Context(), r.URL.Path, o)
	}
	if err != nil {
		a.Error = err.Error()
		if r.Context().Err() == nil {
			h.log.Warn("an order failed", "module", o.Module.Name, "order", r.URL.Path, "err", err)
		}
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(a) // who has gone hears nothing
}

// obey carries one order out. A module is checked here too: what it says becomes paths and commands.
func (h *handler) obey(ctx context.Context, path string, o order) (answer, error) {
	if faults := o.Module.Validate(); len(faults) > 0 {
		return answer{}, faults[0]
	}
	if path == "/"+opMake {
		end, err := h.turn(ctx, o.Module.Name)
		if err != nil {
			return answer{}, err
		}
		defer end()
		return answer{}, h.room.Make(ctx, o.Module, o.Image)
	}
	all := h.room.Of(o.Module)
	if o.Stage < 0 || o.Stage >= len(all) {
		return answer{}, fmt.Errorf("module %s has no stage %d", o.Module.Name, o.Stage)
	}
	do := map[string]func(workload.Stage, context.Context) error{"/" + opStart: workload.Stage.Start,
		"/" + opStop: workload.Stage.Stop, "/" + opKill: workload.Stage.Kill}[path]
	switch {
	case do != nil:
		end, err := h.turn(ctx, fmt.Sprintf("%s/%d", o.Module.Name, o.Stage))
		if err != nil {
			return answer{}, err
		}
		defer end()
		return answer{}, do(all[o.Stage], ctx)
	case path == "/"+opUp:
		up, whole, err := all[o.Stage].Up(ctx)
		return answer{Up: up, Whole: whole}, err
	}
	return answer{}, fmt.Errorf("%q is no order", path)
}
