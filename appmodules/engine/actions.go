package engine

import (
	"fmt"

	"duet/appmodules"
)

// act carries one action out. It returns false when the rest of the row must not
// be done because this action could not be made durable. Its only wait is for that save; what else takes time goes on
// beside it and ends in an event.
func (e *Engine) act(a appmodules.Action) bool {
	switch a {
	case appmodules.Ask:
		return e.ask()
	case appmodules.Override:
		return e.takeByOrder()
	case appmodules.OpenPrimary:
		e.held = false
		e.lead()
	case appmodules.OpenSecondary:
		e.follow()
		e.withdraw()
	case appmodules.CloseVolumes:
		e.dismiss()
		e.withdraw()
	case appmodules.Connect:
		e.leading.connect()
	case appmodules.GoAlone:
		return e.goAlone()
	case appmodules.CompletePeer:
		return e.completePeer()
	case appmodules.ForgetDirty:
		e.leading.forgetDirty()
	case appmodules.Start:
		e.start()
	case appmodules.StartLater:
		e.startLater(e.cfg.Module.Policy.Restart.Pause.Every())
	case appmodules.ShutDown:
		e.shutDown()
	case appmodules.Kill:
		e.kill()
	case appmodules.Hold:
		e.leading.hold()
	case appmodules.Handover:
		return e.handover()
	case appmodules.Unwant:
		e.want(false, e.keep.Ended)
	default:
		panic(fmt.Sprintf("action %s has no code", a))
	}
	return true
}

// want records whether the module is to run, and how its workload ended if that is why it is not. What cannot be saved
// counts in this run, and is tried again, see keepAgain.
func (e *Engine) want(yes bool, ended string) {
	if e.keep.Wanted != yes || e.keep.Ended != ended {
		e.keep.Wanted, e.keep.Ended = yes, ended
		e.saveKept()
	}
}
