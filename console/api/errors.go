package api

import (
	"context"
	"errors"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"duet/cluster"
)

// problem ties one kind of failure to one HTTP status, in both directions.
type problem struct {
	kind   error
	status int
}

// problems is ordered: the first kind found in an error decides. Several statuses of one kind are for reading:
// KindOf knows them all, StatusOf uses the first of its kind.
func problems() []problem {
	return []problem{
		{ErrConfirm, http.StatusPreconditionRequired},
		{ErrNotFound, http.StatusNotFound},
		{ErrInvalid, http.StatusBadRequest},
		{ErrInvalid, http.StatusUnprocessableEntity}, // what the schema refuses
		{ErrConflict, http.StatusConflict},
		{ErrUnreach, http.StatusBadGateway},
		{ErrUnreach, http.StatusGatewayTimeout},
		{context.DeadlineExceeded, http.StatusGatewayTimeout},
	}
}

// KindOf is the kind of failure that a response of that status tells, nil if it is none of them.
func KindOf(status int) error {
	for _, p := range problems() {
		if p.status == status {
			return p.kind
		}
	}
	return nil
}

// StatusOf is the HTTP status of a response that tells err. An error of no known kind is a fault of the node.
// context.DeadlineExceeded is 504, which a client takes for ErrUnreach.
func StatusOf(err error) int {
	for _, p := range problems() {
		if errors.Is(err, p.kind) {
			return p.status
		}
	}
	return http.StatusInternalServerError
}

// refuse turns an error of the Backend into a problem document (RFC 9457). Who reads it knows nothing of Go: what the
// system said is in words.
func refuse(err error) error { return huma.NewError(StatusOf(err), cluster.Plain(err)) }
