package cluster

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Version numbers what nodes say to each other: it grows when a message changes so that an
// older release would misunderstand it. A release speaks its own and the one before, so
// that nodes are upgraded one after the other. Two nodes use the newest that both speak;
// fields that a node does not know are ignored.
//
// Version 1 is that of the releases that named none. Version 2 has identities of modules,
// commands by name and lists of removed nodes.
type Version uint16

const (
	// Current is the newest version that this release speaks, Oldest the other one.
	Current Version = 2
	Oldest  Version = 1
)

var (
	// ErrOlder is returned when the other node's release is too old for what it was asked.
	ErrOlder = errors.New("the other node's release is too old")
	// ErrNewer is returned when the other node's release is too new for what it was asked.
	ErrNewer = errors.New("the other node's release is too new")
)

const protocolPrefix = "duet/"

// Protocols are what a node offers when it greets another one, newest first: names for
// TLS's own negotiation. Version 1 has none.
func Protocols() []string {
	var out []string
	for v := Current; v >= max(Oldest, 2); v-- {
		out = append(out, protocolPrefix+strconv.Itoa(int(v)))
	}
	return out
}

// Negotiated is the version that a negotiation came to: a name of Protocols, or none where
// the other side is of version 1.
func Negotiated(protocol string) (Version, error) {
	switch {
	case protocol == "" && Oldest <= 1:
		return 1, nil
	case slices.Contains(Protocols(), protocol):
		v, err := ParseVersion(strings.TrimPrefix(protocol, protocolPrefix))
		return v, err
	}
	return 0, fmt.Errorf("%w: it speaks %q, this node %s", ErrOlder, protocol, Spoken())
}

// Spoken says which versions this release speaks, for people.
func Spoken() string { return fmt.Sprintf("versions %d and %d", Oldest, Current) }

// ParseVersion reads the decimal form; none is version 1.
func ParseVersion(s string) (Version, error) {
	if s == "" {
		return 1, nil
	}
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("version %q is none", s)
	}
	return Version(n), nil
}

// String is the decimal form.
func (v Version) String() string { return strconv.Itoa(int(v)) }

// Unknown is the error of a node of version theirs that does not know what a node of
// version mine asks: it names both.
func Unknown(node NodeID, theirs, mine Version, what string) error {
	kind := ErrOlder
	if theirs > mine {
		kind = ErrNewer
	}
	return fmt.Errorf("%w: %s speaks version %d and does not know %q, which a node of version %d asks for", kind, node,
		theirs, what, mine)
}
