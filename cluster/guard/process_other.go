//go:build !linux

package guard

import (
	"errors"
	"os"
	"time"
)

// errHere: guests are not processes of this system, as far as Duet knows.
var (
	errHere = errors.New("guests are guarded on Linux only")
	errGone = errors.New("the process has ended")
)

var began = time.Now()

// Now is the time since this process began.
func Now() time.Duration { return time.Since(began) }

// StartOf refuses.
func StartOf(int) (uint64, error) { return 0, errHere }

// Continue refuses.
func Continue(int, uint64) error { return errHere }

type process struct {
	pid   int
	start uint64
}

func openProcess(int, uint64) (*process, error) { return nil, errHere }
func (*process) do(verb) error                  { return errHere }
func (*process) ended() bool                    { return false }
func (*process) stopped() bool                  { return false }
func (*process) close()                         {}
func lock(string) (*os.File, error)             { return nil, errHere }
