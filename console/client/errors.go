package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"strings"

	"duet/cluster"
	"duet/console/api"
)

// The kinds of failure before a node could answer.
var (
	// ErrAway is returned when nothing answers there.
	ErrAway = errors.New("no answer")
	// ErrDenied is returned when the caller has no right to ask.
	ErrDenied = errors.New("denied")
)

// Error is a failed call: a sentence for people and a kind for errors.Is, one
// of the sentinels of this package or of package api, or nil. Kind nil: the node failed, or is of another version.
type Error struct {
	Said  string
	Kind  error
	Cause error
}

// Error is the sentence.
func (e *Error) Error() string { return e.Said }

// Unwrap gives the kind and the cause.
func (e *Error) Unwrap() []error {
	var out []error
	for _, err := range []error{e.Kind, e.Cause} {
		if err != nil {
			out = append(out, err)
		}
	}
	return out
}

// explain turns a failure of the connection into what to do next. The order of the cases matters: a certificate
// that is refused also looks like a connection that failed. A call that was cancelled by its caller is his to
// explain.
func (c *Client) explain(err error) error {
	var unknown x509.UnknownAuthorityError
	var wrongName x509.HostnameError
	var verify *tls.CertificateVerificationError
	fail := func(kind error, format string, args ...any) error {
		return &Error{Said: fmt.Sprintf(format, args...), Kind: kind, Cause: err}
	}
	switch {
	case errors.Is(err, context.Canceled):
		return err
	case errors.Is(err, fs.ErrPermission):
		return fail(ErrDenied, "may not open %s: run duet as root, or use --connect https://NODE:PORT with a token", c.where)
	case errors.As(err, &unknown), errors.As(err, &wrongName):
		return fail(ErrDenied, "the certificate of %s is not of a known authority: give the cluster's CA with --ca-file",
			c.where)
	case errors.As(err, &verify):
		return fail(ErrDenied, "the certificate of %s is not good: %v", c.where, errors.Unwrap(err))
	case errors.Is(err, context.DeadlineExceeded):
		return fail(ErrAway, "duetd does not answer on %s in time: is it running? systemctl status duetd", c.where)
	case !c.local:
		return fail(ErrAway, "duetd does not answer on %s: is it running there? (%s)", c.where, cluster.Plain(err))
	}
	return fail(ErrAway, "duetd does not answer on %s: is it running? systemctl status duetd", c.where)
}

// refusal turns an answer that is not a success into its sentence. The answer is a problem document (RFC 9457);
// what the schema refuses is listed in its errors.
func (c *Client) refusal(status int, answer []byte) error {
	var p struct {
		Detail string
		Errors []struct{ Message, Location string }
	}
	if err := json.Unmarshal(answer, &p); err != nil || p.Detail == "" {
		p.Detail = fmt.Sprintf("%s answered %d %s", c.where, status, http.StatusText(status))
	}
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden:
		return &Error{Said: c.where + " wants a token: give --token-file with a copy of console.token from that node's " +
			"directory", Kind: ErrDenied}
	case http.StatusNotFound, http.StatusMethodNotAllowed:
		if len(answer) == 0 || answer[0] != '{' { // not a problem document: no such path there
			return &Error{Said: p.Detail + ": is it a duetd of the same version?"}
		}
	}
	details := make([]string, 0, len(p.Errors))
	for _, e := range p.Errors {
		details = append(details, strings.TrimSpace(e.Location+" "+e.Message))
	}
	if len(details) > 0 {
		p.Detail += ": " + strings.Join(details, ", ")
	}
	return &Error{Said: p.Detail, Kind: api.KindOf(status)}
}
