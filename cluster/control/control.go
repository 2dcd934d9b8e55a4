// Package control carries what nodes ask of each other: JSON in both directions over the
// port between nodes, with the version of who speaks. A caller's membership is checked at
// each call; what a node does not know is refused with a sentence that names both versions.
//
// # What it promises, and what not
//
// A caller is the node that its certificate names, and a member at the instant of the call. A call may arrive twice,
// also while the first is at work, so all of them are idempotent; that a caller got an error does not say that
// nothing was done. There is no order between calls.
//
// A new call is a route in cmd/node, with a request that is Checked if it names anything; a new kind of error a name
// in Config.Kinds, which older nodes show as a text without a kind.
package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"duet/cluster"
	"duet/cluster/membership"
	"duet/cluster/mux"
)

// maxBody bounds a request and an answer, in bytes.
const maxBody = 16 << 20

// header carries the version of who speaks; version 1 sends none.
const header = "Duet-Version"

// releaseHeader carries the build of who speaks, which is for people and decides nothing; releases before it send none.
const releaseHeader = "Duet-Release"

// maxRelease bounds what is remembered of it, in bytes.
const maxRelease = 64

// ErrRemoved is returned to a caller that is no member of the cluster (any more).
var ErrRemoved = errors.New("the caller is no member of this cluster any more")

// ErrSilent is what Call's Unreachable also is where something did not answer in time: a node that takes connections is
// not off then.
var ErrSilent = errors.New("no answer in time")

// The kinds of errors that this package itself sends.
const (
	kindOlder   = "older"
	kindNewer   = "newer"
	kindRemoved = "removed"
)

// Config says what a Plane works with; all fields are needed but Release.
type Config struct {
	Cluster   func() cluster.Config
	Release   string            // of this program, for people; empty: it is not told
	Transport http.RoundTripper // to nodes, by name
	// Kinds are the errors that cross the wire, by name. Unreachable and Invalid are
	// among them: a node that does not answer, and a request that makes no sense. An error that
	// wraps two of them goes out as either.
	Kinds                map[string]error
	Unreachable, Invalid error
	// Translate gives an error the kind that it has for other nodes; nil is its own.
	Translate func(error) error
	Logger    *slog.Logger
}

// Plane calls other nodes and serves their calls. Any number of goroutines may use it.
type Plane struct {
	cfg  Config
	http *http.Client

	mu       sync.Mutex
	versions map[cluster.NodeID]cluster.Version // as last heard
	releases map[cluster.NodeID]string          // as last heard; of nodes that tell it
	refusals map[cluster.NodeID]bool            // who says that this node is no member
	accepted time.Time                          // when a node last took it for one
}

// New returns a Plane.
func New(cfg Config) *Plane {
	return &Plane{cfg: cfg, http: &http.Client{Transport: cfg.Transport},
		versions: make(map[cluster.NodeID]cluster.Version), releases: make(map[cluster.NodeID]string),
		refusals: make(map[cluster.NodeID]bool)}
}

// Call asks another node: in goes as JSON, out comes back as JSON, both may be nil. Every call may be repeated,
// which the transport does when a path falls silent. It blocks until an answer, at most as long as ctx. What the
// other node says is an *Error with its kind, or plain text without one; a node that cannot be reached is
// Unreachable, and ErrSilent or membership.ErrRemoved where that is why; one whose release does not know the path is
// cluster.ErrOlder or ErrNewer; ErrRemoved says that this node is no member there.
func (p *Plane) Call(ctx context.Context, node cluster.NodeID, path string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return fmt.Errorf("encode request: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+string(node)+"/"+path, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("make request: %w", err)
	}
	p.sign(req.Header)
	resp, err := p.http.Do(req)
	if errors.Is(err, mux.ErrNotAllowed) {
		return p.refused(node, true)
	}
	if err != nil {
		return p.away(node, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	if err != nil {
		return p.away(node, err)
	}
	theirs, err := cluster.ParseVersion(resp.Header.Get(header))
	if err != nil {
		return fmt.Errorf("answer of %s: %w", node, err)
	}
	p.note(node, theirs, resp.Header.Get(releaseHeader))
	if resp.StatusCode != http.StatusOK {
		err := p.failed(node, theirs, path, resp.StatusCode, b)
		_ = p.refused(node, errors.Is(err, ErrRemoved))
		return err
	}
	_ = p.refused(node, false)
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(b, out); err != nil {
		return fmt.Errorf("decode answer of %s: %w", node, err)
	}
	return nil
}

// refused notes whether a node takes this one for no member, and returns what that means.
func (p *Plane) refused(node cluster.NodeID, yes bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !yes {
		delete(p.refusals, node)
		p.accepted = time.Now()
		return nil
	}
	p.refusals[node] = true
	return fmt.Errorf("%w: so says %s", ErrRemoved, node)
}

// newsTime is how long a member may take to hear of another one that was admitted elsewhere.
const newsTime = 3 * time.Second

// Refusals are the members that answered a call last with that this node is no member of the cluster: it was removed.
// While another one takes it for a member there are none: then those have not heard of it yet.
func (p *Plane) Refusals() []cluster.NodeID {
	p.mu.Lock()
	defer p.mu.Unlock()
	if time.Since(p.accepted) < newsTime {
		return nil
	}
	// One that was removed is asked no more, and would be remembered for ever.
	c := p.cfg.Cluster()
	maps.DeleteFunc(p.refusals, func(node cluster.NodeID, _ bool) bool { _, member := c.Member(node); return !member })
	return slices.Sorted(maps.Keys(p.refusals))
}

// away is the error of a node that cannot be reached.
func (p *Plane) away(node cluster.NodeID, err error) error {
	kind := p.cfg.Unreachable
	switch {
	case errors.Is(err, membership.ErrRemoved):
		kind = errors.Join(kind, membership.ErrRemoved)
	case late(err):
		kind = errors.Join(kind, ErrSilent)
	}
	return &Error{kind, fmt.Sprintf("%s does not answer: %s", node, brief(err))}
}

func late(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded)
}

// brief is why a call failed: what lies at the bottom of err on each path, once.
func brief(err error) string {
	var out []string
	var walk func(error)
	walk = func(err error) {
		switch x := err.(type) {
		case interface{ Unwrap() []error }:
			for _, e := range x.Unwrap() {
				walk(e)
			}
			return
		case interface{ Unwrap() error }:
			if inner := x.Unwrap(); inner != nil {
				walk(inner)
				return
			}
		}
		text := cluster.Plain(err)
		if late(err) {
			text = ErrSilent.Error()
		}
		if !slices.Contains(out, text) {
			out = append(out, text)
		}
	}
	walk(err)
	return strings.Join(out, ", ")
}

// sign says who speaks.
func (p *Plane) sign(h http.Header) {
	h.Set(header, cluster.Current.String())
	if p.cfg.Release != "" {
		h.Set(releaseHeader, p.cfg.Release)
	}
}

// note remembers what an answer says of its node.
func (p *Plane) note(node cluster.NodeID, v cluster.Version, release string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.versions[node] = v
	p.releases[node] = release[:min(len(release), maxRelease)]
}

// noteCaller remembers what a request says of its node. A process beside a daemon asks in its name and tells nothing.
func (p *Plane) noteCaller(node cluster.NodeID, release string) {
	if release == "" {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.releases[node] = release[:min(len(release), maxRelease)]
}

// Release is the build of a node's program, as last heard; empty: it has not told it, as a release that does not.
func (p *Plane) Release(node cluster.NodeID) string {
	if node == p.cfg.Cluster().Self {
		return p.cfg.Release
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.releases[node]
}

// Version asks a node for the version that it speaks now: it may have been exchanged for another release since it
// was heard last. A node of version 1 does not know the question, which is an answer too.
func (p *Plane) Version(ctx context.Context, node cluster.NodeID) (cluster.Version, error) {
	err := p.Call(ctx, node, "version", nil, nil)
	if err != nil && !errors.Is(err, cluster.ErrOlder) {
		return 0, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.versions[node], nil
}

// failure is an error on its way between nodes. Its JSON stays: all releases read it.
type failure struct {
	Kind string `json:"kind"`
	Text string `json:"text"`
}

// Error is what another node said, with the kind it gave.
type Error struct {
	Kind error
	Text string
}

// Error is the other node's sentence.
func (e *Error) Error() string { return e.Text }

// Unwrap is its kind.
func (e *Error) Unwrap() error { return e.Kind }

// failed is the error that an answer other than 200 means. One of version 1 to a path that it does not know has no
// body of ours.
func (p *Plane) failed(node cluster.NodeID, theirs cluster.Version, path string, status int, b []byte) error {
	var f failure
	if json.Unmarshal(b, &f) != nil || f.Text == "" {
		if status == http.StatusNotFound { // version 1 says no more
			return cluster.Unknown(node, theirs, cluster.Current, path)
		}
		return fmt.Errorf("%s answers %d", node, status)
	}
	if kind := p.kind(f.Kind); kind != nil {
		return &Error{kind, f.Text}
	}
	return errors.New(f.Text)
}

func (p *Plane) kind(name string) error {
	switch name {
	case kindOlder:
		return cluster.ErrOlder
	case kindNewer:
		return cluster.ErrNewer
	case kindRemoved:
		return ErrRemoved
	}
	return p.cfg.Kinds[name]
}

// nameOf is the name of the kind of an error; empty if it has none.
func (p *Plane) nameOf(err error) string {
	switch {
	case errors.Is(err, cluster.ErrOlder):
		return kindOlder
	case errors.Is(err, cluster.ErrNewer):
		return kindNewer
	case errors.Is(err, ErrRemoved):
		return kindRemoved
	}
	for name, kind := range p.cfg.Kinds {
		if errors.Is(err, kind) {
			return name
		}
	}
	return ""
}

type versionKey struct{}

// VersionFrom is the version that the caller of a request speaks.
func VersionFrom(ctx context.Context) cluster.Version {
	v, _ := ctx.Value(versionKey{}).(cluster.Version)
	return v
}

// Handler serves routes to the members of the cluster. routes must not have /version yet. Membership is looked at
// before the path, so that one who was removed learns nothing else. The version of the caller is in the context, see
// VersionFrom.
func (p *Plane) Handler(routes *http.ServeMux) http.Handler {
	routes.Handle("POST /version", Handle(p, func(context.Context, any) (struct{}, error) { return struct{}{}, nil }))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.sign(w.Header())
		theirs, err := cluster.ParseVersion(r.Header.Get(header))
		if err != nil {
			p.fail(w, fmt.Errorf("%w: %w", p.cfg.Invalid, err))
			return
		}
		c := p.cfg.Cluster()
		from, member := mux.MemberFrom(r.Context())
		if !member { // it may have been when it connected
			p.fail(w, fmt.Errorf("%w: %s was removed from cluster %s: `duet cluster rejoin` there brings it back", ErrRemoved,
				from, c.Name))
			return
		}
		p.noteCaller(from, r.Header.Get(releaseHeader))
		if _, pattern := routes.Handler(r); pattern == "" {
			p.fail(w, cluster.Unknown(c.Self, cluster.Current, theirs, r.URL.Path))
			return
		}
		routes.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), versionKey{}, theirs)))
	})
}

// workTime bounds what is done for one call.
const workTime = 2 * time.Minute

// Handle decodes a request, checks it, calls fn and encodes what that returns. A request
// with a method Check is refused where that fails.
//
// The context of fn does not end with the connection. A caller whose path falls silent repeats its call over
// another, and a node that is slow would undo and begin anew each time, and perhaps leave the last one half done. fn
// has workTime, and runs twice at once where a caller repeats its call.
func Handle[In, Out any](p *Plane, fn func(context.Context, In) (Out, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		in, err := Decode[In](http.MaxBytesReader(w, r.Body, maxBody))
		if err != nil {
			p.fail(w, fmt.Errorf("%w: %v", p.cfg.Invalid, err))
			return
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), workTime)
		defer cancel()
		out, err := fn(ctx, in)
		if err != nil {
			p.fail(w, err)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		if err := json.NewEncoder(w).Encode(out); err != nil {
			p.cfg.Logger.Debug("answer not sent", "err", err)
		}
	})
}

// Checked is a request that can say whether it makes sense.
type Checked interface{ Check() error }

// Decode reads one request and checks it. Fields that it does not know are of a newer release. What follows the
// first value is ignored.
func Decode[In any](r io.Reader) (In, error) {
	var in In
	if err := json.NewDecoder(r).Decode(&in); err != nil {
		return in, err
	}
	if c, ok := any(in).(Checked); ok {
		return in, c.Check()
	}
	return in, nil
}

// fail answers with an error and its kind.
func (p *Plane) fail(w http.ResponseWriter, err error) {
	if p.cfg.Translate != nil {
		err = p.cfg.Translate(err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusUnprocessableEntity)
	_ = json.NewEncoder(w).Encode(failure{p.nameOf(err), err.Error()}) // the caller sees a broken answer if this fails
}
