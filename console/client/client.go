// Package client speaks to a node's API over its unix socket or over TLS. Its
// errors are one sentence that says what to do next.
//
// A call is one request: nothing is repeated, since the caller knows better whether it may be. Errors are *Error,
// but for a context that was cancelled and what cannot be encoded or read. client.go has the calls, connect.go the
// two ways to a node, errors.go the sentences.
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"duet/console/api"
)

const (
	maxAnswer   = 64 << 20         // bytes of one answer
	longestCall = 60 * time.Second // of every call but those that take long, whatever deadline its caller has
	// longestWork is of Support and CheckProtect. It is longer than the node's own limit, which says more.
	longestWork = api.WorkTime + 10*time.Second
)

// Client calls one node. It may be used by several goroutines. It keeps connections for a minute after their last
// call.
type Client struct {
	base  string       // "http://duetd" over the socket
	where string       // as admins know it
	local bool         // over the socket
	token string       // empty: none is shown
	http  *http.Client // its connections are kept between calls
}

// Close drops idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Status returns the view of the whole cluster.
func (c *Client) Status(ctx context.Context) (api.Status, error) {
	return call[api.Status](ctx, c, "GET", "status", nil)
}

// Module returns one module on all its nodes.
func (c *Client) Module(ctx context.Context, module string) (api.ModuleStatus, error) {
	return call[api.ModuleStatus](ctx, c, "GET", path("modules", module), nil)
}

// Log returns the newest n transitions of a module, oldest first.
func (c *Client) Log(ctx context.Context, module string, n int) ([]api.LogEntry, error) {
	return call[[]api.LogEntry](ctx, c, "GET", path("modules", module, "log")+"?n="+strconv.Itoa(n), nil)
}

// Act asks a module for an action and returns when it was accepted. Whether it comes to pass is for package
// outcome; ErrConfirm asks for r.Yes.
func (c *Client) Act(ctx context.Context, module string, a api.Action, r api.ActionRequest) (api.ActionResult, error) {
	return call[api.ActionResult](ctx, c, "POST", path("modules", module, string(a)), r)
}

// Protect puts a VM under protection and returns the work to follow.
func (c *Client) Protect(ctx context.Context, vm string, r api.ProtectRequest) (api.Task, error) {
	return call[api.Task](ctx, c, "POST", path("vms", vm, "protect"), r)
}

// Install makes a module of an application and returns the work to follow.
func (c *Client) Install(ctx context.Context, r api.InstallRequest) (api.Task, error) {
	return call[api.Task](ctx, c, "POST", path("modules"), r)
}

// CheckProtect tells what would come of Protect and changes nothing. On a slow host it takes minutes, or is
// api.ErrConflict and can be asked again.
func (c *Client) CheckProtect(ctx context.Context, vm string, r api.ProtectRequest) (api.ProtectCheck, error) {
	return callWithin[api.ProtectCheck](ctx, longestWork, c, "POST", path("vms", vm, "check"), r)
}

// Release ends the protection of a module's VM and returns the work to follow.
func (c *Client) Release(ctx context.Context, module string, r api.ReleaseRequest) (api.Task, error) {
	return call[api.Task](ctx, c, "POST", path("modules", module, "release"), r)
}

// Return has disks of a module's VM copied back onto their volumes and returns the work to follow.
func (c *Client) Return(ctx context.Context, module string) (api.Task, error) {
	return call[api.Task](ctx, c, "POST", path("modules", module, "return"), nil)
}

// Verify compares the copies of one volume and returns the work to follow.
func (c *Client) Verify(ctx context.Context, module, target string, repair bool) (api.Task, error) {
	return call[api.Task](ctx, c, "POST", path("volumes", module, target, "verify")+"?repair="+strconv.FormatBool(repair),
		nil)
}

// Task returns long work and how far it is.
func (c *Client) Task(ctx context.Context, id string) (api.Task, error) {
	return call[api.Task](ctx, c, "GET", path("tasks", id), nil)
}

// Tasks lists the long works of the node, those that go on and those that ended lately, the oldest first.
func (c *Client) Tasks(ctx context.Context) ([]api.Task, error) {
	return call[[]api.Task](ctx, c, "GET", "tasks", nil)
}

// Volumes lists every volume on every node.
func (c *Client) Volumes(ctx context.Context) ([]api.Volume, error) {
	return call[[]api.Volume](ctx, c, "GET", "volumes", nil)
}

// Config returns the configuration of a module.
func (c *Client) Config(ctx context.Context, module string) (api.Config, error) {
	return call[api.Config](ctx, c, "GET", path("config", module), nil)
}

// errEmpty is a text that says nothing: what a node answers to that is of HTTP.
var errEmpty = &Error{Said: "the configuration is empty", Kind: api.ErrInvalid}

// Check validates a configuration and changes nothing.
func (c *Client) Check(ctx context.Context, yaml []byte) error {
	if len(yaml) == 0 {
		return errEmpty
	}
	return c.do(ctx, request{"POST", "config/check", "application/yaml", yaml}, nil)
}

// Apply stores a new configuration of the module that it names: an edit of version base, refused with api.ErrConflict
// if there is another by now; 0: of whatever there is.
func (c *Client) Apply(ctx context.Context, yaml []byte, base uint64) (api.Config, error) {
	var out api.Config
	if len(yaml) == 0 {
		return out, errEmpty
	}
	to := "config"
	if base != 0 {
		to += "?base=" + strconv.FormatUint(base, 10)
	}
	err := c.do(ctx, request{"PUT", to, "application/yaml", yaml}, &out)
	return out, err
}

// NewToken makes a one-time token for a joining node.
func (c *Client) NewToken(ctx context.Context, life time.Duration) (api.Token, error) {
	return call[api.Token](ctx, c, "POST", "cluster/token?life="+life.String(), nil)
}

// AddWitness makes a witness the third voter of the cluster.
func (c *Client) AddWitness(ctx context.Context, r api.WitnessRequest) (api.WitnessStatus, error) {
	return call[api.WitnessStatus](ctx, c, "POST", "cluster/witness", r)
}

// Fences lists how nodes can be switched off.
func (c *Client) Fences(ctx context.Context) ([]api.FenceStatus, error) {
	return call[[]api.FenceStatus](ctx, c, "GET", "cluster/fence", nil)
}

// SetFence says how a node can be switched off.
func (c *Client) SetFence(ctx context.Context, node string, levels [][]api.FenceDevice) error {
	b, err := json.Marshal(levels)
	if err != nil {
		return fmt.Errorf("encode request: %w", err)
	}
	return c.do(ctx, request{"PUT", path("cluster", "fence", node), "application/json", b}, nil)
}

// TestFence asks the fence devices of a node and switches nothing.
func (c *Client) TestFence(ctx context.Context, node string) (api.FenceStatus, error) {
	return call[api.FenceStatus](ctx, c, "POST", path("cluster", "fence", node, "test"), nil)
}

// PingTargets lists what modules with "available" go by.
func (c *Client) PingTargets(ctx context.Context) (api.PingTargets, error) {
	return call[api.PingTargets](ctx, c, "GET", "cluster/ping", nil)
}

// SetPing exchanges them; none: the default gateway of each node.
func (c *Client) SetPing(ctx context.Context, targets []string) (api.PingTargets, error) {
	return call[api.PingTargets](ctx, c, "PUT", "cluster/ping", append([]string{}, targets...))
}

// RemoveNode takes a node that is gone for good off the cluster.
func (c *Client) RemoveNode(ctx context.Context, node string) (api.NodeRemoval, error) {
	return call[api.NodeRemoval](ctx, c, "DELETE", path("cluster", "nodes", node), nil)
}

// RemoveWitness does without the one at addr; empty: the only one.
func (c *Client) RemoveWitness(ctx context.Context, addr string) error {
	return c.do(ctx, request{method: "DELETE", path: "cluster/witness?addr=" + url.QueryEscape(addr)}, nil)
}

// Diverged lists what is kept of volumes that lost a split brain.
func (c *Client) Diverged(ctx context.Context) ([]api.Version, error) {
	return call[[]api.Version](ctx, c, "GET", "versions", nil)
}

// Difference tells where one differs from the volume as it is now.
func (c *Client) Difference(ctx context.Context, id string) (api.Difference, error) {
	return call[api.Difference](ctx, c, "GET", path("versions", id), nil)
}

// ExportVersion writes one to a new raw image and returns the work to follow.
func (c *Client) ExportVersion(ctx context.Context, id, file string) (api.Task, error) {
	return call[api.Task](ctx, c, "POST", path("versions", id, "export"), map[string]string{"path": file})
}

// DropVersion forgets one.
func (c *Client) DropVersion(ctx context.Context, id string) error {
	return c.do(ctx, request{method: "DELETE", path: path("versions", id)}, nil)
}

// VMs lists the virtual machines of all nodes that answer.
func (c *Client) VMs(ctx context.Context) (api.VMs, error) {
	return call[api.VMs](ctx, c, "GET", "vms", nil)
}

// Doctor looks at all nodes and returns what is wrong and what to do.
func (c *Client) Doctor(ctx context.Context) (api.Doctor, error) {
	return call[api.Doctor](ctx, c, "GET", "doctor", nil)
}

// Support writes a zip of what somebody needs who is to help. On an error part of it may be written. An answer that
// the node had to cut short is an error too.
func (c *Client) Support(ctx context.Context, w io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, longestWork)
	defer cancel()
	res, err := c.send(ctx, request{method: "GET", path: "support"})
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if _, err := io.Copy(w, res.Body); err != nil {
		return c.explain(err)
	}
	return nil
}

// path joins segments that may hold any character. Without it a name with a slash would be another call.
func path(segments ...string) string {
	out := ""
	for i, s := range segments {
		if i > 0 {
			out += "/"
		}
		out += url.PathEscape(s)
	}
	return out
}

// path is below /v1/ and may have a query.
type request struct {
	method, path, contentType string
	body                      []byte
}

// call sends in as JSON, or nothing if it is nil, and decodes the answer. With an error the answer is empty.
func call[T any](ctx context.Context, c *Client, method, path string, in any) (T, error) {
	return callWithin[T](ctx, longestCall, c, method, path, in)
}

// callWithin is call with another limit.
func callWithin[T any](ctx context.Context, limit time.Duration, c *Client, method, path string, in any) (T, error) {
	var out T
	r := request{method: method, path: path}
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return out, fmt.Errorf("encode request: %w", err)
		}
		r.contentType, r.body = "application/json", b
	}
	err := c.doWithin(ctx, limit, r, &out)
	return out, err
}

// do sends r and decodes the answer into out, if out is not nil. The whole answer is read, up to maxAnswer, so that
// the connection can be used again.
func (c *Client) do(ctx context.Context, r request, out any) error {
	return c.doWithin(ctx, longestCall, r, out)
}

// doWithin is do with another limit.
func (c *Client) doWithin(ctx context.Context, limit time.Duration, r request, out any) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	res, err := c.send(ctx, r)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return c.explain(err)
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(answer, out); err != nil {
		return fmt.Errorf("read the answer of %s: %w: is it a duetd of the same version?", c.where, err)
	}
	return nil
}

// send sends r and returns an answer that is a success, whose body the caller closes. All below 300 is a success.
// Over TLS a redirection is not followed.
func (c *Client) send(ctx context.Context, r request) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, r.method, c.base+"/v1/"+r.path, bytes.NewReader(r.body))
	if err != nil {
		return nil, fmt.Errorf("make request: %w", err)
	}
	if r.contentType != "" {
		req.Header.Set("Content-Type", r.contentType)
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	res, err := c.http.Do(req)
	if err != nil {
		return nil, c.explain(err)
	}
	if res.StatusCode < 300 {
		return res, nil
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return nil, c.explain(err)
	}
	return nil, c.refusal(res.StatusCode, answer)
}
