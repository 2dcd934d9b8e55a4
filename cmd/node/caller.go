package node

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"duet/appmodules/engine"
	"duet/cluster"
	"duet/cluster/mux"
	"duet/console/api"
)

// maxAnswer bounds an answer of another node, in bytes.
const maxAnswer = 16 << 20

// rpcTo calls another node: in goes as JSON, out comes back as JSON, both may be
// nil. All calls may be repeated, which the transport does when a path falls silent.
func (n *Node) rpcTo(ctx context.Context, node cluster.NodeID, path string, in, out any) error {
	return call(ctx, n.call, node, path, in, out)
}

// call is rpcTo by a client of its own.
func call(ctx context.Context, c *http.Client, node cluster.NodeID, path string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return fmt.Errorf("encode request: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+string(node)+"/"+path, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("make request: %w", err)
	}
	resp, err := c.Do(req)
	if err != nil {
		return fmt.Errorf("%w: %s: %v", api.ErrUnreach, node, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("%w: %s: %v", api.ErrUnreach, node, err)
	}
	if resp.StatusCode != http.StatusOK {
		return decodeFailure(node, resp.StatusCode, b)
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(b, out); err != nil {
		return fmt.Errorf("decode answer of %s: %w", node, err)
	}
	return nil
}

// failure is an error on its way between nodes.
type failure struct {
	Kind string `json:"kind"`
	Text string `json:"text"`
}

// kinds are the sentinels that cross the wire.
func kinds() map[string]error {
	return map[string]error{
		"not-found": api.ErrNotFound, "invalid": api.ErrInvalid, "conflict": api.ErrConflict,
		"confirm": api.ErrConfirm, "unreachable": api.ErrUnreach,
	}
}

// remoteError is what another node said, with the kind it gave.
type remoteError struct {
	kind error
	text string
}

// Error is the other node's sentence.
func (e *remoteError) Error() string { return e.text }

// Unwrap is its kind.
func (e *remoteError) Unwrap() error { return e.kind }

// errNoRoute: the other node is of a release that does not know what it was asked.
var errNoRoute = errors.New("it does not know that request")

func decodeFailure(node cluster.NodeID, status int, b []byte) error {
	var f failure
	if json.Unmarshal(b, &f) != nil || f.Text == "" {
		if status == http.StatusNotFound {
			return fmt.Errorf("%s: %w", node, errNoRoute)
		}
		return fmt.Errorf("%s answers %d", node, status)
	}
	if kind, ok := kinds()[f.Kind]; ok {
		return &remoteError{kind, f.Text}
	}
	return errors.New(f.Text)
}

// caller reaches the engine of a module on another node. It is an engine.Peer.
type caller struct {
	n      *Node
	node   cluster.NodeID
	module string
}

var _ engine.Peer = caller{}

func (c caller) do(ctx context.Context, what string, in, out any) error {
	return c.n.rpcTo(ctx, c.node, "modules/"+c.module+"/"+what, in, out)
}

// Ask asks for a vote.
func (c caller) Ask(ctx context.Context, a cluster.Ask) (ans cluster.Answer, err error) {
	err = c.do(ctx, "ask", a, &ans)
	return ans, err
}

// Handover gives the right to write away.
func (c caller) Handover(ctx context.Context, h engine.Handover) error {
	return c.do(ctx, "handover", h, nil)
}

// Complete ends a resync.
func (c caller) Complete(ctx context.Context, m engine.Complete) error {
	return c.do(ctx, "complete", m, nil)
}

// Tell exchanges states.
func (c caller) Tell(ctx context.Context, mine engine.State) (theirs engine.State, err error) {
	var answer told
	err = c.do(ctx, "tell", told{mine, c.n.fitness.of(c.module)}, &answer)
	switch {
	case err == nil:
		c.n.fitness.hear(c.module, answer.Notices)
	case errors.Is(err, api.ErrNotFound):
		c.n.unknownTo(c.node, c.module)
	}
	return answer.State, err
}

// Define sends a VM's definition.
func (c caller) Define(ctx context.Context, d engine.Definition) error {
	return c.do(ctx, "define", d, nil)
}

// Dial opens a replication connection.
func (c caller) Dial(ctx context.Context) (net.Conn, error) {
	return c.n.mux.Dial(ctx, c.node, serviceReplication, mux.Replication)
}

// pingTime bounds one ping of arbitration.
const pingTime = 800 * time.Millisecond
