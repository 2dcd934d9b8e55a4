package appmodules

import "fmt"

// Role is what a module is on one node; Status how far it has got. Users know
// the words and the exit codes from SafeKit.
type Role uint8

// The roles.
const (
	Stop Role = iota
	Wait
	Alone
	Prim
	Second
)

// Status is the second half of a displayed state.
type Status uint8

// The statuses: red, orange, green.
const (
	NotReady Status = iota
	Transient
	Ready
)

var (
	roleNames   = [...]string{"STOP", "WAIT", "ALONE", "PRIM", "SECOND"}
	statusNames = [...]string{"NotReady", "Transient", "Ready"}
)

// String is the word admins see.
func (r Role) String() string {
	if int(r) < len(roleNames) {
		return roleNames[r]
	}
	return fmt.Sprintf("role %d", r)
}

// String is the word admins see.
func (s Status) String() string {
	if int(s) < len(statusNames) {
		return statusNames[s]
	}
	return fmt.Sprintf("status %d", s)
}
