package appmodules

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

// Acts: the module has the right to write here, as far as its role says.
func (r Role) Acts() bool { return r == Prim || r == Alone }

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
	return "UNKNOWN" // of a newer version
}

// MarshalText writes the word.
func (r Role) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText reads a word; one of a newer version makes a Role that is none of these.
func (r *Role) UnmarshalText(b []byte) error {
	*r = Role(position(roleNames[:], b))
	return nil
}

// String is the word admins see.
func (s Status) String() string { return name(statusNames[:], int(s), "status") }

// MarshalText writes the word.
func (s Status) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads a word; one of a newer version makes a Status that is none of these.
func (s *Status) UnmarshalText(b []byte) error {
	*s = Status(position(statusNames[:], b))
	return nil
}
