//go:build !linux

package stage

import (
	"context"
	"errors"

	"duet/appmodules"
	"duet/appmodules/workload"
)

// Room has nothing: applications run on Linux.
type Room struct{}

// New returns a Room.
func New(Config) *Room { return &Room{} }

// Of is one stage that does not come up.
func (*Room) Of(appmodules.Module) []workload.Stage { return []workload.Stage{missing{}} }

// behind fails.
func behind(string, []string, string, int) error { return errors.ErrUnsupported }

// Make fails.
func (*Room) Make(context.Context, appmodules.Module, string) error {
	return errors.ErrUnsupported
}

// missing is a stage of another system.
type missing struct{}

func (missing) Label() string                                  { return "an application of Linux" }
func (missing) Up(context.Context) (up, whole bool, err error) { return false, false, nil }
func (missing) Start(context.Context) error                    { return errors.ErrUnsupported }
func (missing) Stop(context.Context) error                     { return nil }
func (missing) Kill(context.Context) error                     { return nil }
