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
	s := &http.Server{Handler: handler{New(cfg), cfg.Logger}, MaxHeaderBytes: 4 << 10,
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
}

func (h handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
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
func (h handler) obey(ctx context.Context, path string, o order) (answer, error) {
	if faults := o.Module.Validate(); len(faults) > 0 {
		return answer{}, faults[0]
	}
	if path == "/"+opMake {
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
		return answer{}, do(all[o.Stage], ctx)
	case path == "/"+opUp:
		up, whole, err := all[o.Stage].Up(ctx)
		return answer{Up: up, Whole: whole}, err
	}
	return answer{}, fmt.Errorf("%q is no order", path)
}
