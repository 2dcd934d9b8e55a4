package witness

import (
	"context"
	"errors"
	"net"
	"syscall"
)

// Words are why a call failed, in words for an admin: those of the witness where it answered, else what became of the
// way to it. They name neither the witness nor the call. err is that of a Client's call and not nil.
func Words(err error) string {
	var timeout net.Error
	var name *net.DNSError
	switch said := Refused(err); {
	case said != "":
		return said
	case errors.Is(err, ErrWrongWitness):
		return ErrWrongWitness.Error() + ": its key is not the one that was registered"
	case errors.As(err, &name):
		return "the name " + name.Name + " is not known here"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "its computer is up, duetd-witness does not run there"
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return "there is no way to its computer"
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return "it does not answer in time"
	case errors.Is(err, ErrClosed):
		return "this node stops"
	}
	return "the connection to it broke" // the log has more
}
