package witness

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"duet/cluster"
	"duet/cluster/enroll"
	"duet/cluster/ratelimit"
)

// maxBody bounds requests and answers, in bytes. A registration holds one certificate; of members factsAtOnce are
// told.
const maxBody = 32 << 10

// The calls, all POST, JSON in both directions. Where {id} stands the caller shows a
// certificate of the cluster registered under it.
const (
	pathRegister     = "/v1/register"
	pathAsk          = "/v1/clusters/{id}/ask"
	pathForgetModule = "/v1/clusters/{id}/forget-module"
	pathHello        = "/v1/clusters/{id}/hello"
	pathMembers      = "/v1/clusters/{id}/members"
)

type registerRequest struct {
	Secret []byte `json:"secret"`
	Registration
}

type forgetRequest struct {
	Module string `json:"module"`
}

// Greeting is what a witness tells of itself.
type Greeting struct {
	Version  string         `json:"version"`
	Node     cluster.NodeID `json:"node"`     // whom the witness takes the caller for
	Cluster  string         `json:"cluster"`  // the name it knows the cluster by
	Modules  int            `json:"modules"`  // of the caller's cluster that it votes for
	Clusters int            `json:"clusters"` // that it serves in all
	Time     time.Time      `json:"time"`     // its clock
}

// problem is the answer to a call that failed.
type problem struct {
	Kind  string `json:"kind"`
	Error string `json:"error"`
}

// kind lets a sentinel cross the wire.
type kind struct {
	name string
	err  error
	// The status is for people and proxies; a Client goes by the name.
	status int
}

// kinds are the sentinels that cross the wire, by names that stay as they are: clients of other releases know them.
// The first that matches counts. An error that is none of them arrives without a kind.
func kinds() []kind {
	return []kind{
		{"token-unknown", enroll.ErrUnknown, http.StatusForbidden},
		{"token-used", enroll.ErrUsed, http.StatusConflict},
		{"token-expired", enroll.ErrExpired, http.StatusForbidden},
		{"tries", ratelimit.ErrTooManyTries, http.StatusTooManyRequests},
		{"taken", ErrTaken, http.StatusConflict},
		{"request", ErrBadRequest, http.StatusBadRequest},
		{"cluster-unknown", ErrUnknownCluster, http.StatusForbidden},
		{"no-certificate", ErrNoCertificate, http.StatusUnauthorized},
		{"foreign", ErrForeign, http.StatusForbidden},
		{"expired", ErrExpired, http.StatusForbidden},
		{"node", ErrWrongNode, http.StatusForbidden},
		{"removed", ErrRemoved, http.StatusForbidden},
		{"full", ErrFull, http.StatusInsufficientStorage},
		{"store", ErrStore, http.StatusInternalServerError},
		{"stopping", ErrStopping, http.StatusServiceUnavailable},
	}
}

// routes is the handler of all calls. Whatever path is not known is refused as ErrBadRequest, from which a newer
// node learns that this witness is older.
func (s *Server) routes(g *gate) http.Handler {
	mux := http.NewServeMux()
	for path, call := range map[string]func(*http.Request, []byte) (any, error){
		pathRegister: s.serveRegister, pathAsk: s.serveAsk, pathForgetModule: s.serveForget, pathHello: s.serveHello,
		pathMembers: s.serveMembers,
	} {
		mux.HandleFunc("POST "+path, func(w http.ResponseWriter, r *http.Request) { s.serve(g, w, r, call) })
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		s.refuse(w, fmt.Errorf("%w: no call %s %.64s", ErrBadRequest, r.Method, r.URL.Path))
	})
	return mux
}

// serve answers one call. The gate is held from before the body is read until the answer is written, so that a vote
// that was made durable is still told when the witness stops. The time for the body is bounded by readTimeout.
func (s *Server) serve(g *gate, w http.ResponseWriter, r *http.Request, call func(*http.Request, []byte) (any, error)) {
	if !g.enter() {
		s.refuse(w, ErrStopping)
		return
	}
	defer g.leave()
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		s.refuse(w, fmt.Errorf("%w: read body: %w", ErrBadRequest, err))
		return
	}
	out, err := call(r, body)
	if err != nil {
		s.refuse(w, err)
		return
	}
	reply(w, http.StatusOK, out)
}

// refuse tells the caller what is wrong, and the log if it is the witness itself.
func (s *Server) refuse(w http.ResponseWriter, err error) {
	if errors.Is(err, ErrStore) {
		s.log.Error("call failed", "error", err)
	}
	for _, k := range kinds() {
		if errors.Is(err, k.err) {
			reply(w, k.status, problem{k.name, err.Error()})
			return
		}
	}
	reply(w, http.StatusInternalServerError, problem{Error: err.Error()})
}

func reply(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // a caller who is gone asks again
}

func decode[T any](body []byte) (T, error) {
	var v T
	if err := json.Unmarshal(body, &v); err != nil {
		return v, fmt.Errorf("%w: %w", ErrBadRequest, err)
	}
	return v, nil
}

func (s *Server) serveRegister(_ *http.Request, body []byte) (any, error) {
	req, err := decode[registerRequest](body)
	if err != nil {
		return nil, err
	}
	return struct{}{}, s.register(req.Secret, req.Registration)
}

// caller finds out who makes a call. It looks anew each time, so that what was removed or has ended does not live on
// in an open connection. What the call changes asks party.present once more, under its lock.
func (s *Server) caller(r *http.Request) (party, error) {
	t, err := s.tenant(r.PathValue("id"))
	if err != nil {
		return party{}, err
	}
	node, err := caller(r.TLS.PeerCertificates, t.ca, s.cfg.Now())
	if err != nil {
		return party{}, err
	}
	sum := sha256.Sum256(r.TLS.PeerCertificates[0].RawSubjectPublicKeyInfo)
	p := party{t, node, hex.EncodeToString(sum[:])}
	return p, p.admitted()
}

func (s *Server) serveAsk(r *http.Request, body []byte) (any, error) {
	p, err := s.caller(r)
	if err != nil {
		return nil, err
	}
	a, err := decode[cluster.Ask](body)
	if err != nil {
		return nil, err
	}
	return s.ask(p, a)
}

func (s *Server) serveForget(r *http.Request, body []byte) (any, error) {
	p, err := s.caller(r)
	if err != nil {
		return nil, err
	}
	req, err := decode[forgetRequest](body)
	if err != nil {
		return nil, err
	}
	return struct{}{}, s.forgetModule(p, req.Module)
}

func (s *Server) serveHello(r *http.Request, _ []byte) (any, error) {
	p, err := s.caller(r)
	if err != nil {
		return nil, err
	}
	s.mu.RLock()
	clusters := len(s.tenants)
	s.mu.RUnlock()
	return Greeting{Version: s.cfg.Version, Node: p.node, Cluster: p.Name, Modules: p.modules(), Clusters: clusters,
		Time: s.cfg.Now().UTC()}, nil
}
