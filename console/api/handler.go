package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
)

// What one request may ask for and send.
const (
	maxLog  = 10000   // transitions
	maxBody = 1 << 20 // bytes
)

// Handler serves b under /v1, the document that describes it at /openapi.json
// and, if metrics is not nil, metrics at /metrics. It checks no rights: whoever
// may open the connection may do everything (see package console). It starts no goroutine and keeps nothing: all
// state is b's.
func Handler(b Backend, version string, metrics http.Handler) http.Handler {
	mux := http.NewServeMux()
	h := handlers{b}
	a := humago.New(mux, config(version))
	h.reading(a)
	h.acting(a)
	h.working(a)
	h.configuring(a)
	h.helping(a)
	if metrics != nil {
		mux.Handle("GET /metrics", metrics)
	}
	return mux
}

// config describes the document. DocsPath is empty because that page would load
// scripts from the network, and there are no hooks because "$schema" fields in
// answers would serve nobody.
func config(version string) huma.Config {
	c := huma.DefaultConfig("Duet", version)
	c.Info.Description = "Protect virtual machines on two nodes: what every node serves on its unix socket and over TLS."
	c.DocsPath = ""
	c.SchemasPath = ""
	c.CreateHooks = nil
	c.RejectUnknownQueryParameters = true // a misspelt ?repair= must not silently do something else
	return c
}

// handlers adapts a Backend to HTTP.
type handlers struct{ b Backend }

// operation names one call: id is what generated clients call it. statuses are what the document lists besides 500;
// what is answered depends on the error alone (StatusOf). 422 is huma's for what the schema refuses, before the
// Backend is asked.
func operation(method, path, id, summary string, statuses ...int) huma.Operation {
	return huma.Operation{
		OperationID: id, Method: method, Path: "/v1" + path, Summary: summary,
		Errors:       append(statuses, http.StatusInternalServerError),
		MaxBodyBytes: maxBody, // huma's own default does not cover raw bodies
	}
}

// body is a JSON answer. huma wants the field Body.
type body[T any] struct{ Body T }

// call registers one operation: f gets the input and its result becomes the answer. I is checked by its tags before
// f is called; a call without an answer is registered without call and gives 204.
func call[I, O any](a huma.API, op huma.Operation, f func(context.Context, *I) (O, error)) {
	huma.Register(a, op, func(ctx context.Context, in *I) (*body[O], error) {
		out, err := f(ctx, in)
		if err != nil {
			return nil, refuse(err)
		}
		return &body[O]{out}, nil
	})
}

// moduleInput addresses one module.
type moduleInput struct {
	Name string `path:"name" doc:"module"`
}

type logInput struct {
	Name string `path:"name" doc:"module"`
	N    int    `query:"n" default:"50" minimum:"1" doc:"how many of the newest"`
}

// Resolve cuts what is asked for instead of refusing it.
func (l *logInput) Resolve(huma.Context) []error {
	l.N = min(l.N, maxLog)
	return nil
}

// reading registers what changes nothing.
func (h handlers) reading(a huma.API) {
	call(a, operation("GET", "/status", "status", "The whole cluster as this node sees it"),
		func(ctx context.Context, _ *struct{}) (Status, error) { return h.b.Status(ctx) })
	call(a, operation("GET", "/modules/{name}", "module", "One module on all its nodes", 404),
		func(ctx context.Context, in *moduleInput) (ModuleStatus, error) {
			st, err := h.b.Status(ctx)
			if err != nil {
				return ModuleStatus{}, err
			}
			return st.Module(in.Name)
		})
	call(a, operation("GET", "/modules/{name}/log", "log",
		"The newest transitions of a module on all reachable nodes, oldest first", 404),
		func(ctx context.Context, in *logInput) ([]LogEntry, error) {
			entries, err := h.b.Log(ctx, in.Name, in.N)
			return list(entries), err
		})
	call(a, operation("GET", "/volumes", "volumes", "Every volume on every node"),
		func(ctx context.Context, _ *struct{}) ([]Volume, error) {
			st, err := h.b.Status(ctx)
			return list(st.Volumes()), err
		})
}

// An action of a newer version does not fit the enum and is 422.
type actInput struct {
	Name   string         `path:"name" doc:"module"`
	Action Action         `path:"action" enum:"start,stop,restart,swap,prim,second"`
	Body   *ActionRequest // may be left out
}

type releaseInput struct {
	Name string          `path:"name" doc:"module"`
	Body *ReleaseRequest // may be left out
}

type nodeInput struct {
	Node string `path:"node"`
}

type fenceInput struct {
	Node string `path:"node"`
}

// Its body is the whole set of levels, in place of the old one.
type setFenceInput struct {
	Node string `path:"node"`
	Body [][]FenceDevice
}

// Its body is the whole list, in place of the old one.
type pingInput struct{ Body []string }

type witnessInput struct{ Body WitnessRequest }

// Life is read by parseLife.
type tokenInput struct {
	Life string `query:"life" default:"1h" doc:"how long the token is good, as 90m or 24h"`
}

// acting registers what an operator asks of a module or of the cluster.
func (h handlers) acting(a huma.API) {
	call(a, operation("POST", "/modules/{name}/{action}", "act",
		"Ask a module for an action; returns when it was accepted", 400, 404, 409, 428, 502),
		func(ctx context.Context, in *actInput) (ActionResult, error) {
			var r ActionRequest
			if in.Body != nil {
				r = *in.Body
			}
			return h.b.Act(ctx, in.Name, in.Action, r)
		})
	call(a, operation("POST", "/cluster/token", "token", "Make a one-time token for a joining node", 400, 409),
		func(ctx context.Context, in *tokenInput) (Token, error) {
			life, err := parseLife(in.Life)
			if err != nil {
				return Token{}, err
			}
			return h.b.NewToken(ctx, life)
		})
	call(a, operation("POST", "/cluster/witness", "addWitness",
		"Make a witness the third voter of the cluster, or a spare if there is one", 400, 409, 502),
		func(ctx context.Context, in *witnessInput) (WitnessStatus, error) {
			return h.b.AddWitness(ctx, in.Body)
		})
	call(a, operation("GET", "/cluster/fence", "fences", "How nodes can be switched off"),
		func(ctx context.Context, _ *struct{}) ([]FenceStatus, error) {
			all, err := h.b.Fences(ctx)
			return list(all), err
		})
	call(a, operation("POST", "/cluster/fence/{node}/test", "testFence",
		"Ask the fence devices of a node and switch nothing", 400, 404, 409),
		func(ctx context.Context, in *fenceInput) (FenceStatus, error) { return h.b.TestFence(ctx, in.Node) })
	huma.Register(a, operation("PUT", "/cluster/fence/{node}", "setFence",
		"Say how a node can be switched off; no levels: it cannot be", 400, 404, 502),
		func(ctx context.Context, in *setFenceInput) (*struct{}, error) {
			if err := h.b.SetFence(ctx, in.Node, in.Body); err != nil {
				return nil, refuse(err)
			}
			return nil, nil
		})
	call(a, operation("GET", "/cluster/ping", "pingTargets", "What decides under \"available\""),
		func(ctx context.Context, _ *struct{}) (PingTargets, error) { return h.b.PingTargets(ctx) })
	call(a, operation("PUT", "/cluster/ping", "setPing",
		"Say what decides under \"available\"; none: the default gateway of each node", 400),
		func(ctx context.Context, in *pingInput) (PingTargets, error) { return h.b.SetPing(ctx, in.Body) })
	call(a, operation("DELETE", "/cluster/nodes/{node}", "removeNode",
		"Take a node that is gone for good off the cluster", 404, 409),
		func(ctx context.Context, in *nodeInput) (NodeRemoval, error) { return h.b.RemoveNode(ctx, in.Node) })
	huma.Register(a, operation("DELETE", "/cluster/witness", "removeWitness",
		"Do without a witness; a spare takes the voter's place first", 400, 404, 409, 502),
		func(ctx context.Context, in *addrInput) (*struct{}, error) {
			if err := h.b.RemoveWitness(ctx, in.Addr); err != nil {
				return nil, refuse(err)
			}
			return nil, nil
		})
}

type addrInput struct {
	Addr string `query:"addr" doc:"which witness; may be left out if there is one only"`
}

// It is that of check, too: both are asked with the same.
type protectInput struct {
	Name string          `path:"name" doc:"virtual machine, by the hypervisor's name"`
	Body *ProtectRequest // may be left out
}

func (in *protectInput) request() ProtectRequest {
	if in.Body == nil {
		return ProtectRequest{}
	}
	return *in.Body
}

type verifyInput struct {
	Module string `path:"module"`
	Target string `path:"target" doc:"disk, by the hypervisor's name, as vda"`
	Repair bool   `query:"repair" doc:"make the peer's copy follow where it differs"`
}

type installInput struct{ Body InstallRequest }

// The path is on the node that is asked.
type exportInput struct {
	ID   string `path:"id"`
	Body struct {
		Path string `json:"path" doc:"whole path of the file, which must not exist"`
	}
}

type taskInput struct {
	ID string `path:"id"`
}

// working registers long work: each answers with the Task to follow.
func (h handlers) working(a huma.API) {
	call(a, operation("POST", "/vms/{name}/protect", "protect",
		"Put a virtual machine under protection", 400, 404, 409, 502),
		func(ctx context.Context, in *protectInput) (Task, error) {
			return h.b.Protect(ctx, in.Name, in.request())
		})
	call(a, operation("POST", "/vms/{name}/check", "checkProtect",
		"Tell what would come of protecting a virtual machine, and change nothing", 400, 404, 409, 502),
		func(ctx context.Context, in *protectInput) (ProtectCheck, error) {
			return h.b.CheckProtect(ctx, in.Name, in.request())
		})
	call(a, operation("POST", "/modules", "install", "Make a module of an application", 400, 409, 502),
		func(ctx context.Context, in *installInput) (Task, error) { return h.b.Install(ctx, in.Body) })
	call(a, operation("POST", "/modules/{name}/release", "release",
		"End the protection of a module's virtual machine, which goes on unprotected", 404, 409, 502),
		func(ctx context.Context, in *releaseInput) (Task, error) {
			var r ReleaseRequest
			if in.Body != nil {
				r = *in.Body
			}
			return h.b.Release(ctx, in.Name, r)
		})
	call(a, operation("POST", "/modules/{name}/return", "return",
		"Copy disks of a running virtual machine that are not on their volumes back onto them", 404, 409, 502),
		func(ctx context.Context, in *moduleInput) (Task, error) { return h.b.Return(ctx, in.Name) })
	call(a, operation("POST", "/volumes/{module}/{target}/verify", "verify",
		"Compare the copies of one volume", 404, 409, 502),
		func(ctx context.Context, in *verifyInput) (Task, error) {
			return h.b.Verify(ctx, in.Module+"/"+in.Target, in.Repair)
		})
	call(a, operation("GET", "/versions", "versions", "What is kept of volumes that lost a split brain"),
		func(ctx context.Context, _ *struct{}) ([]Version, error) {
			all, err := h.b.Diverged(ctx)
			return list(all), err
		})
	call(a, operation("GET", "/versions/{id}", "difference",
		"Where a kept version differs from the volume as it is now", 404, 409, 502),
		func(ctx context.Context, in *taskInput) (Difference, error) { return h.b.Difference(ctx, in.ID) })
	call(a, operation("POST", "/versions/{id}/export", "exportVersion",
		"Write a kept version to a new raw image on the node that answers", 400, 404, 409),
		func(ctx context.Context, in *exportInput) (Task, error) {
			return h.b.ExportVersion(ctx, in.ID, in.Body.Path)
		})
	huma.Register(a, operation("DELETE", "/versions/{id}", "dropVersion", "Forget a kept version", 404, 502),
		func(ctx context.Context, in *taskInput) (*struct{}, error) {
			if err := h.b.DropVersion(ctx, in.ID); err != nil {
				return nil, refuse(err)
			}
			return nil, nil
		})
	call(a, operation("GET", "/tasks", "tasks", "The long works of this node that go on, and those of the last hour"),
		func(ctx context.Context, _ *struct{}) ([]Task, error) {
			all, err := h.b.TaskList(ctx)
			return list(all), err
		})
	call(a, operation("GET", "/tasks/{id}", "task", "Long work and how far it is", 404),
		func(ctx context.Context, in *taskInput) (Task, error) { return h.b.Task(ctx, in.ID) })
}

// The text is passed on as it came, maxBody at most.
type yamlInput struct {
	RawBody []byte `contentType:"application/yaml" doc:"a module's configuration"`
}

type applyInput struct {
	yamlInput
	Base uint64 `query:"base" doc:"the version that was edited: refused if there is another by now; 0: whatever there is"`
}

// configuring registers the configuration of modules. The YAML names its module
// itself, so the path does not: the two could disagree.
func (h handlers) configuring(a huma.API) {
	call(a, operation("GET", "/config/{name}", "config", "The configuration of a module", 404),
		func(ctx context.Context, in *moduleInput) (Config, error) { return h.b.Config(ctx, in.Name) })
	call(a, operation("PUT", "/config", "apply",
		"Store a new configuration of the module that it names", 400, 404, 409, 502),
		func(ctx context.Context, in *applyInput) (Config, error) {
			return h.b.Apply(ctx, string(in.RawBody), in.Base)
		})
	huma.Register(a, operation("POST", "/config/check", "check", "Check a configuration and change nothing", 400),
		func(ctx context.Context, in *yamlInput) (*struct{}, error) {
			if err := h.b.Check(ctx, string(in.RawBody)); err != nil {
				return nil, refuse(err)
			}
			return nil, nil
		})
}

// list keeps an empty list from being written as null. Tools that loop over an answer need no case for it.
func list[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}
