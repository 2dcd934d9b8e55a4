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

// helping registers what helps when something is wrong.
func (h handlers) helping(a huma.API) {
	call(a, operation("GET", "/doctor", "doctor", "Look at all nodes: what is wrong and what to do"),
		func(ctx context.Context, _ *struct{}) (Doctor, error) { return h.b.Doctor(ctx) })
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
