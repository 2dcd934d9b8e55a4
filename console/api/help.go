package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"
)

// Doctor is what a look at all nodes found.
type Doctor struct {
	Node     string    `json:"node" doc:"node that looked"`
	Findings []Finding `json:"findings" doc:"node by node, then of the whole cluster"`
}

// Finding is one thing that was looked at.
type Finding struct {
	Node   string `json:"node" doc:"which node it is about; empty: the whole cluster"`
	Level  string `json:"level" enum:"ok,note,warning,problem" doc:"a warning: not yet wrong; a problem: does not work"`
	About  string `json:"about" doc:"in one word: libvirt, network, memory…"`
	Fact   string `json:"fact" doc:"one sentence"`
	Remedy string `json:"remedy,omitempty" doc:"what to do, the harmless first"`
}

// SupportType is what Support answers with.
const SupportType = "application/zip"

// helping registers what helps when something is wrong. The zip is written while it is sent: an error after its
// first byte can only cut the answer.
func (h handlers) helping(a huma.API) {
	call(a, operation("GET", "/doctor", "doctor", "Look at all nodes: what is wrong and what to do"),
		func(ctx context.Context, _ *struct{}) (Doctor, error) { return h.b.Doctor(ctx) })
	call(a, operation("GET", "/vms", "vms", "The virtual machines of all nodes that answer, protected or not"),
		func(ctx context.Context, _ *struct{}) (VMs, error) { return h.b.VMs(ctx) })
	op := operation("GET", "/support", "support",
		"A zip of logs, configuration without secrets and figures of all nodes that answer")
	op.Responses = map[string]*huma.Response{"200": {Description: "the zip", Content: map[string]*huma.MediaType{
		SupportType: {Schema: &huma.Schema{Type: huma.TypeString, Format: "binary"}}}}}
	huma.Register(a, op, func(ctx context.Context, _ *struct{}) (*huma.StreamResponse, error) {
		write, err := h.b.Support(ctx)
		if err != nil {
			return nil, refuse(err)
		}
		return &huma.StreamResponse{Body: func(hc huma.Context) {
			hc.SetHeader("Content-Type", SupportType)
			hc.SetHeader("Content-Disposition", `attachment; filename="duet-support.zip"`)
			if err := write(hc.BodyWriter()); err != nil {
				panic(http.ErrAbortHandler) // the caller sees that the answer was cut
			}
		}}, nil
	})
}

// VMs are the virtual machines of the cluster's nodes.
type VMs struct {
	VMs []VM `json:"vms" doc:"by name"`
	// Missing says why the VMs of a node are not among them.
	Missing []string `json:"missing,omitempty" doc:"sentences"`
}

// VM is one virtual machine, as a node's hypervisor knows it.
type VM struct {
	Name    string `json:"name"`
	Node    string `json:"node"`
	Running bool   `json:"running"`
	Memory  int64  `json:"memory" doc:"bytes it may use"`
	Module  string `json:"module,omitempty" doc:"the module that protects it; empty: none does"`
}
