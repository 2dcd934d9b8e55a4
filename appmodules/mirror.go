package appmodules

import "sync"

// The machine of a mirror module as one table. Reasons are sentences for an
// admin: the kind of the module fills its nouns in, the engine adds names and numbers.
//
// The order of the rows of one phase and event is part of the table: the first whose guard holds applies, so a guard
// needs not say what those before it have excluded, and a row that moves among them changes what is decided. A row of
// Deposed has CloseVolumes before Kill: the volumes are fenced at once, a guest takes its time to end.

// The guards. A guard that names two facts needs both.
var (
	always      = Guard{}
	holderAlone = Guard{"holder alone", func(f Facts, _ Link) bool { return f.Holder && f.Alone }}
	holderMet   = Guard{"holder, peer answers", func(f Facts, _ Link) bool {
		return f.Holder && f.PeerAnswers && !f.PeerYields
	}}
	worse = Guard{"holder, but the peer's copy is better",
		func(f Facts, _ Link) bool { return f.Holder && f.Worse && f.PeerAnswers }}
	peerActive = Guard{"peer holds and is active, storage good", func(f Facts, _ Link) bool {
		return !f.Holder && f.PeerHolds && f.PeerAnswers && f.PeerActive && !f.PeerYields && !f.Rests
	}}
	silent      = Guard{"complete, peer silent", func(f Facts, _ Link) bool { return f.Complete && f.Silent }}
	silentStale = Guard{"not complete, peer silent", func(f Facts, _ Link) bool { return !f.Complete && f.Silent }}
	peerStopped = Guard{"complete, peer stopped, not tried on both", func(f Facts, _ Link) bool {
		return f.Complete && f.PeerAnswers && !f.PeerActive && !(f.Balked && f.PeerBalked)
	}}
	loneStopped = Guard{"open, not alone, peer stopped",
		func(f Facts, _ Link) bool { return f.Open && !f.Alone && f.PeerAnswers && !f.PeerActive }}
	loneSilent = Guard{"open, not alone, peer silent",
		func(f Facts, _ Link) bool { return f.Open && !f.Alone && f.Silent }}
	isOpen    = Guard{"open", func(f Facts, _ Link) bool { return f.Open }}
	yielded   = Guard{"peer yields", func(f Facts, _ Link) bool { return f.PeerAnswers && f.PeerYields }}
	orphan    = Guard{"up, not holder", func(f Facts, _ Link) bool { return f.Up && !f.Holder }}
	mayMove   = Guard{"in step, moves left", func(f Facts, l Link) bool { return l == InStep && f.MovesLeft }}
	takesBack = Guard{"takes back", func(f Facts, _ Link) bool { return f.PeerAnswers && f.TakesBack }}
	impaired  = Guard{"metadata cannot be saved", func(f Facts, _ Link) bool { return f.Impaired }}
	inStep    = Guard{"in step", func(_ Facts, l Link) bool { return l == InStep }}
	up        = Guard{"up", func(f Facts, _ Link) bool { return f.Up }}
	restarts  = Guard{"restarts left", func(f Facts, _ Link) bool { return f.RestartsLeft }}
	goHome    = Guard{"in step, belongs on the peer", func(f Facts, l Link) bool { return l == InStep && f.Home }}
	maySwap   = Guard{"in step, would stay there", func(f Facts, l Link) bool { return l == InStep && !f.AtHome }}
	gaveUp    = Guard{"gave up", func(f Facts, _ Link) bool { return f.GaveUp }}
	balked    = Guard{"did not start", func(f Facts, _ Link) bool { return f.Balked || f.GaveUp }}
	mayTry    = Guard{"gave up, or did not start and was not tried there", func(f Facts, _ Link) bool {
		return f.GaveUp || f.Balked && !f.PeerBalked && f.MovesLeft
	}}
	notTried = Guard{"in step, not tried there, moves left", func(f Facts, l Link) bool {
		return l == InStep && !f.PeerBalked && f.MovesLeft
	}}
	peerMayTry = Guard{"gave up, peer is there and not tried, moves left", func(f Facts, l Link) bool {
		return f.GaveUp && l != InStep && f.PeerAnswers && f.PeerActive && !f.PeerBalked && f.MovesLeft
	}}
	heirIsBack = Guard{"gave up, holder, wanted, peer is there and not tried, moves left", func(f Facts, _ Link) bool {
		return f.GaveUp && f.Holder && f.Wanted && f.PeerAnswers && f.PeerActive && !f.PeerBalked && f.MovesLeft
	}}
	wanted     = Guard{"wanted", func(f Facts, _ Link) bool { return f.Wanted }}
	endsFrozen = Guard{"policy.frozen is kill", func(f Facts, _ Link) bool { return f.EndsFrozen }}
	unwanted   = Guard{"not wanted", func(f Facts, _ Link) bool { return !f.Wanted }}
	bereft     = Guard{"not wanted, peer silent", func(f Facts, _ Link) bool { return !f.Wanted && f.Silent }}
)

// mirrorTable has all rows; index sorts them by phase and event, and keeps their order.
func mirrorTable() [][]Row {
	return [][]Row{stoppedRows(), waitingRows(), openingRows(), startingRows(), runningRows(),
		frozenRows(), movingRows(), followingRows(), endingRows()}
}

func do(a ...Action) []Action { return a }

func stoppedRows() []Row {
	return []Row{
		{Stopped, Boot, wanted, nil, Waiting, NoLink, "it was running before this node started"},
		{Stopped, Look, heirIsBack, do(OpenPrimary), Opening, NoLink,
			"the {workload} does not start here and the peer is back: bring the peer into step, to start it there"},
		{Stopped, CmdStart, always, nil, Waiting, NoLink, "started by an operator"},
		{Stopped, CmdSecond, always, nil, Waiting, NoLink, "started by an operator, to follow the peer"},
		{Stopped, CmdPrim, always, do(Override, OpenPrimary), Opening, NoLink, "an operator made this node primary"},
	}
}

func waitingRows() []Row {
	return []Row{
		{Waiting, Look, orphan, do(Kill), Killing, NoLink,
			"the {workload} here is from before this node lost the right: what it remembers of its disk is old, so it is ended"},
		{Waiting, Look, holderAlone, do(OpenPrimary), Opening, NoLink, "this node holds the newest epoch alone"},
		{Waiting, Look, worse, do(Handover), Handing, NoLink,
			"this node lost power and the peer did not: the peer's copy has writes that were never flushed here"},
		{Waiting, Look, yielded, do(Ask), Asking, KeepLink, "the peer has given the right to this node"},
		{Waiting, Look, takesBack, do(Ask), Asking, KeepLink,
			"the peer does not know of the right it was given, and has stopped or lost power since: ask for it back"},
		{Waiting, Look, holderMet, do(OpenPrimary), Opening, NoLink, "this node holds the newest epoch and the peer answers"},
		{Waiting, Look, peerActive, do(OpenSecondary), Following, KeepLink, "the peer holds the newest epoch: follow it"},
		{Waiting, Look, peerStopped, do(Ask), Asking, KeepLink, "the peer has stopped and the data here are complete"},
		{Waiting, Look, silent, do(Ask), Asking, KeepLink, "the peer is silent and the data here are complete"},
		{Waiting, CmdSecond, always, nil, Waiting, KeepLink, "it waits to follow the peer"},
		{Waiting, CmdStart, always, nil, Waiting, KeepLink, "it is started already and waits"},
		{Waiting, CmdStop, always, nil, Stopped, NoLink, "stopped by an operator"},
		{Waiting, CmdStopAll, always, nil, Stopped, NoLink, "stopped by an operator"},
		{Waiting, CmdPrim, always, do(Override, OpenPrimary), Opening, NoLink, "an operator made this node primary"},

		{Asking, Granted, always, do(OpenPrimary), Opening, NoLink, "the right to write was granted"},
		{Asking, CmdPrim, always, do(Override, OpenPrimary), Opening, NoLink, "an operator made this node primary"},
		{Asking, Denied, always, nil, Waiting, KeepLink, "the right to write was not granted"},
		{Asking, StorageFailed, always, nil, Waiting, KeepLink, "this node cannot keep a promise, so it cannot ask"},
		{Asking, Deposed, always, nil, Waiting, KeepLink, "the peer holds a newer epoch; the data here are outdated"},
		{Asking, Outvoted, always, nil, Waiting, KeepLink, "the peer goes on; the data here are outdated"},
		{Asking, CmdStop, always, nil, Stopped, NoLink, "stopped by an operator"},
		{Asking, CmdStopAll, always, nil, Stopped, NoLink, "stopped by an operator"},
	}
}

func openingRows() []Row {
	return []Row{
		{Opening, Opened, holderAlone, do(GoAlone, Start, Connect), Starting, NoLink,
			"the volumes are open and the peer is outdated: go on alone"},
		{Opening, Opened, always, do(Connect), Opening, NoLink,
			"the volumes are open; I/O waits until the peer confirms the epoch"},
		{Opening, OpenFailed, up, do(Kill), Stopping, NoLink,
			"a volume could not be opened: the {workload}, whose disk it is, is ended"},
		{Opening, OpenFailed, always, do(CloseVolumes), Stopped, NoLink, "a volume could not be opened"},
		{Opening, PeerStale, always, do(GoAlone, Start, Connect), Starting, NoLink,
			"the peer says that it is not complete: go on alone and resync it"},
		{Opening, LinkInStep, always, do(Start), Starting, InStep, "the peer confirmed the epoch and is in step"},
		{Opening, Look, loneStopped, do(Ask), Opening, KeepLink, "the peer does not take part: ask it to be outdated"},
		{Opening, Look, loneSilent, do(Ask), Opening, KeepLink, "the peer is silent: ask for the right to go on alone"},
		{Opening, Granted, always, do(GoAlone, Start, Connect), Starting, NoLink, "the right to go on alone was granted"},
		{Opening, Denied, always, nil, Opening, KeepLink, "I/O waits: the right to go on alone was not granted"},
		{Opening, Agreed, always, do(Ask), Opening, KeepLink, "the peer has agreed to be outdated: ask it again for its yes"},
		{Opening, Timeout, always, do(Ask), Opening, KeepLink,
			"the peer answers but its volumes do not connect: ask it to be outdated"},
		{Opening, Deposed, always, do(CloseVolumes, Kill), Killing, NoLink, "the peer holds a newer epoch"},
		{Opening, DiskHung, always, do(OpenPrimary), Opening, NoLink,
			"the disk here does not answer: I/O waits until it does"},
		{Opening, StorageFailed, always, do(Kill), Stopping, KeepLink, "the storage here failed"},
		{Opening, CmdPrim, isOpen, do(Override, GoAlone, Start, Connect), Starting, NoLink,
			"an operator made this node primary"},
		{Opening, CmdStop, always, do(Kill), Stopping, KeepLink, "stopped by an operator before I/O began"},
		{Opening, CmdStopAll, always, do(Kill), Stopping, KeepLink, "stopped by an operator before I/O began"},
	}
}

// linkRows are the same in every phase in which the volumes take writes.
func linkRows(p Phase) []Row {
	return []Row{
		{p, LinkUp, always, nil, p, Syncing, "the peer is connected: resync while the {workload} runs"},
		{p, LinkInStep, always, nil, p, InStep, "the peer is connected and in step"},
		{p, Drained, always, do(CompletePeer), p, KeepLink, "everything that differed is on the peer"},
		{p, PeerCompleted, always, do(ForgetDirty), p, InStep, "the peer is complete: every write goes to both nodes"},
		{p, LinkLost, always, do(Connect), p, NoLink, "the peer was lost during its resync; it was not needed"},
		{p, Agreed, always, do(Ask), p, KeepLink, "the peer has agreed to be outdated: ask it again for its yes"},
		{p, Granted, always, do(GoAlone, Connect), p, NoLink, "the right to go on alone was granted"},
		{p, Split, always, do(Override, GoAlone, Connect), p, NoLink,
			"SPLIT BRAIN: both nodes went on in one epoch; this one had the right before and keeps it"},
		{p, PeerLost, always, do(Ask, Connect), Frozen, NoLink,
			"the peer was lost: writes wait for the right to go on alone"},
		{p, Deposed, always, do(CloseVolumes, Kill), Killing, NoLink, "the peer holds a newer epoch"},
	}
}

func startingRows() []Row {
	given := []Row{
		{Starting, LinkInStep, mayTry, do(Kill), Leaving, InStep,
			"the peer is in step: the {workload}, which does not start here, moves there"},
		{Starting, PeerCompleted, mayTry, do(ForgetDirty, Kill), Leaving, InStep,
			"the peer is in step: the {workload}, which does not start here, moves there"},
		{Starting, CmdStart, balked, do(Start), Starting, KeepLink, "started by an operator: try here again"},
		{Starting, LinkLost, gaveUp, do(Kill), Stopping, NoLink,
			"the {workload} does not start here, and the peer was lost again"},
	}
	return append(append(append(given, linkRows(Starting)...), workloadRows(Starting)...), []Row{
		{Starting, Up, always, nil, Running, KeepLink, "the {workload} runs"},
		{Starting, StartFailed, notTried, do(Kill), Leaving, KeepLink,
			"the {workload} does not start here: move it to the peer"},
		{Starting, StartFailed, restarts, do(StartLater), Starting, KeepLink,
			"the {workload} does not start: it is tried again after policy.restart.pause"},
		{Starting, StartFailed, peerMayTry, nil, Starting, KeepLink,
			"the {workload} does not start here: the peer is brought into step, to start it there"},
		{Starting, StartFailed, always, do(Kill), Stopping, KeepLink,
			"the {workload} does not start, and the peer cannot take over or it failed there too"},
		{Starting, DiskHung, inStep, do(Kill), Leaving, KeepLink, "the disk here does not answer: move to the peer"},
		{Starting, DiskHung, always, do(OpenPrimary), Opening, NoLink,
			"the disk here does not answer and the peer cannot take over: I/O waits until it does"},
		{Starting, StorageFailed, inStep, do(Kill), Leaving, KeepLink, "the storage here failed: move to the peer"},
		{Starting, StorageFailed, always, do(Kill), Stopping, KeepLink,
			"the storage here failed and the peer cannot take over"},
		{Starting, CmdStop, always, do(Kill), Stopping, KeepLink, "stopped by an operator"},
		{Starting, CmdStopAll, always, do(Kill), Stopping, KeepLink, "stopped by an operator"},
	}...)
}

// workloadRows say what follows the end of a workload that should run.
func workloadRows(p Phase) []Row {
	return []Row{
		{p, Failed, restarts, do(Start), Starting, KeepLink, "the {guest} failed: restart it here"},
		{p, Failed, mayMove, do(Kill), Leaving, KeepLink, "the {guest} failed too often here: move it to the peer"},
		{p, Failed, always, do(Kill), Stopping, KeepLink,
			"the {guest} failed too often here, and the peer cannot take over or it failed there too"},
		{p, Move, mayMove, do(Kill), Leaving, KeepLink, "the {guest} failed: move it to the peer"},
		{p, Move, restarts, do(Start), Starting, KeepLink,
			"the {guest} failed and the peer cannot take over: restart it here"},
		{p, Move, always, do(Kill), Stopping, KeepLink, "the {guest} failed too often and the peer cannot take over"},
		{p, Ended, always, do(Unwant, Kill), Stopping, KeepLink, "the {guest} ended, and the policy is to stop the module"},
	}
}

func runningRows() []Row {
	return append(append(linkRows(Running), workloadRows(Running)...), []Row{
		{Running, Down, always, do(Start), Starting, KeepLink,
			"the {guest} went down for a move that was given up: start it again"},
		{Running, CmdStart, always, nil, Running, KeepLink, "it runs already"},
		{Running, CmdRestart, always, do(ShutDown), Restarting, KeepLink, "restarted by an operator"},
		{Running, CmdSwap, maySwap, do(ShutDown), Leaving, KeepLink, "swapped by an operator"},
		{Running, Look, goHome, do(ShutDown), Leaving, KeepLink, "the preferred primary is in step again: fail back"},
		{Running, CmdStop, inStep, do(ShutDown), Leaving, KeepLink, "stopped here: the peer goes on"},
		{Running, CmdStop, always, do(ShutDown), Stopping, KeepLink, "stopped; the peer cannot take over"},
		{Running, CmdStopAll, always, do(ShutDown), Stopping, KeepLink, "stopped by an operator"},
		{Running, DiskHung, inStep, do(Kill), Leaving, KeepLink, "the disk here does not answer: move to the peer"},
		{Running, DiskHung, always, do(OpenPrimary), Opening, NoLink,
			"the disk here does not answer and the peer cannot take over: I/O waits until it does"},
		{Running, StorageFailed, inStep, do(Kill), Leaving, KeepLink, "the storage here failed: move to the peer"},
		{Running, StorageFailed, always, do(Kill), Stopping, KeepLink,
			"the storage here failed and the peer cannot take over"},
	}...)
}

func frozenRows() []Row {
	return []Row{
		{Frozen, Granted, up, do(GoAlone, Connect), Running, NoLink, "the right to go on alone was granted"},
		{Frozen, Granted, always, do(GoAlone, Start, Connect), Starting, NoLink, "the right to go on alone was granted"},
		{Frozen, Denied, always, nil, Frozen, KeepLink, "writes wait: the right to go on alone was not granted"},
		{Frozen, Agreed, always, do(Ask), Frozen, KeepLink, "the peer has agreed to be outdated: ask it again for its yes"},
		{Frozen, Look, always, do(Ask), Frozen, KeepLink, "writes wait: ask again"},
		{Frozen, LinkInStep, up, nil, Running, InStep, "the peer is back and in step"},
		{Frozen, LinkInStep, always, do(Start), Starting, InStep, "the peer is back and in step"},
		{Frozen, PeerStale, up, do(GoAlone, Connect), Running, NoLink,
			"the peer says that it is not complete: go on alone and resync it"},
		{Frozen, PeerStale, always, do(GoAlone, Start, Connect), Starting, NoLink,
			"the peer says that it is not complete: go on alone and resync it"},
		{Frozen, Deposed, always, do(CloseVolumes, Kill), Killing, NoLink, "the peer holds a newer epoch"},
		{Frozen, Timeout, endsFrozen, do(CloseVolumes, Kill), Killing, NoLink,
			"nobody granted the right to go on: the {workload} is ended"},
		{Frozen, DiskHung, always, do(OpenPrimary), Opening, NoLink,
			"the disk here does not answer and the peer cannot take over: I/O waits until it does"},
		{Frozen, StorageFailed, always, do(CloseVolumes, Kill), Killing, NoLink, "the storage here failed"},
		{Frozen, CmdPrim, up, do(Override, GoAlone, Connect), Running, NoLink, "an operator made this node primary"},
		{Frozen, CmdPrim, always, do(Override, GoAlone, Start, Connect), Starting, NoLink,
			"an operator made this node primary"},
		{Frozen, CmdStop, always, do(Kill), Stopping, KeepLink, "stopped by an operator while writes waited"},
		{Frozen, CmdStopAll, always, do(Kill), Stopping, KeepLink, "stopped by an operator while writes waited"},
	}
}

func movingRows() []Row {
	rows := append(linkRows(Restarting), []Row{
		{Restarting, Down, always, do(Start), Starting, KeepLink, "the {guest} has shut down: start it"},
		{Restarting, Timeout, always, do(Kill), Restarting, KeepLink, "the {guest} did not shut down in time: end it"},
		{Restarting, DiskHung, inStep, do(Kill), Leaving, KeepLink, "the disk here does not answer: move to the peer"},
		{Restarting, DiskHung, always, do(OpenPrimary), Opening, NoLink,
			"the disk here does not answer and the peer cannot take over: I/O waits until it does"},
		{Restarting, StorageFailed, inStep, do(Kill), Leaving, KeepLink, "the storage here failed: move to the peer"},
		{Restarting, StorageFailed, always, do(Kill), Stopping, KeepLink,
			"the storage here failed and the peer cannot take over"},
		{Restarting, CmdStop, always, do(Kill), Stopping, KeepLink, "stopped by an operator"},
		{Restarting, CmdStopAll, always, do(Kill), Stopping, KeepLink, "stopped by an operator"},
	}...)
	return append(rows, []Row{
		{Leaving, Down, always, do(Hold), Handing, KeepLink, "the {guest} has shut down: flush both copies"},
		{Leaving, Timeout, always, do(Kill), Leaving, KeepLink, "the {guest} did not shut down in time: end it"},
		{Leaving, PeerLost, always, do(Ask, Connect), Frozen, NoLink, "the peer was lost before it could take over"},
		{Leaving, Deposed, always, do(CloseVolumes, Kill), Killing, NoLink, "the peer holds a newer epoch"},
		{Leaving, CmdStopAll, always, do(Kill), Stopping, KeepLink, "stopped by an operator"},

		{Handing, Held, always, do(Handover), Handing, KeepLink, "both copies are flushed: give the right to the peer"},
		{Handing, HoldFailed, always, do(Handover), Handing, KeepLink,
			"the peer has every acknowledged write: give the right to it"},
		{Handing, PeerLost, always, do(Ask, Connect), Frozen, NoLink, "the peer was lost before it could take over"},
		{Handing, HandedOver, wanted, do(OpenSecondary), Following, NoLink, "the peer has taken over"},
		{Handing, HandedOver, always, do(CloseVolumes), Stopped, NoLink, "the peer has taken over; stopped here"},
		{Handing, HandoverFailed, wanted, do(CloseVolumes), Waiting, NoLink,
			"the peer did not confirm that it has taken over; the right is the peer's"},
		{Handing, HandoverFailed, always, do(CloseVolumes), Stopped, NoLink,
			"the peer did not confirm that it has taken over; stopped here"},
		{Handing, StorageFailed, always, do(CloseVolumes), Waiting, NoLink, "the right could not be given away durably"},
		{Handing, Timeout, always, do(CloseVolumes), Waiting, NoLink, "the right could not be given away in time"},
		{Handing, Deposed, always, do(CloseVolumes, Kill), Killing, NoLink, "the peer holds a newer epoch"},
	}...)
}

func followingRows() []Row {
	return []Row{
		{Following, Followed, always, nil, Following, Syncing, "the primary is connected: resync"},
		{Following, Completed, always, nil, Standby, InStep, "the data here are complete: this node may take over"},
		{Following, Diverged, always, nil, Following, KeepLink,
			"SPLIT BRAIN: this node wrote without its peer, which goes on; its version is kept aside: see `duet volume " +
				"diverged`"},
		{Following, FollowLost, always, nil, Following, NoLink, "the primary's connection is gone"},
		{Following, Outvoted, always, do(CloseVolumes, OpenSecondary), Following, NoLink,
			"the primary goes on alone; the data here are outdated until its resync"},
		{Following, Look, orphan, do(CloseVolumes, Kill), Killing, NoLink,
			"a {workload} runs here although the right to write is not here: it is ended"},
		{Following, Look, yielded, do(CloseVolumes, Ask), Asking, NoLink, "the peer has given the right to this node"},
		{Following, Look, takesBack, do(CloseVolumes, Ask), Asking, NoLink,
			"the peer does not know of the right it was given, and has stopped or lost power since: ask for it back"},
		{Following, Look, silent, do(CloseVolumes, Ask), Asking, NoLink,
			"the primary is silent and the data here are complete: take over"},
		{Following, Look, silentStale, do(CloseVolumes), Waiting, NoLink,
			"the primary is silent and the data here are not complete"},
		{Following, Look, peerStopped, do(CloseVolumes, Ask), Asking, NoLink,
			"the primary has stopped and the data here are complete: take over"},
		{Following, TakeOver, always, do(CloseVolumes, OpenPrimary), Opening, NoLink, "the peer has handed over"},
		{Following, StorageFailed, impaired, do(CloseVolumes), Waiting, NoLink,
			"this node cannot save what it decides: it takes no part until it can"},
		{Following, StorageFailed, always, do(CloseVolumes), Waiting, NoLink, "the storage here failed"},
		{Following, CmdSecond, always, nil, Following, KeepLink, "it follows the peer"},
		{Following, CmdStart, always, nil, Following, KeepLink, "it is started already"},
		{Following, CmdStop, always, do(CloseVolumes), Stopped, NoLink, "stopped by an operator"},
		{Following, CmdStopAll, always, do(CloseVolumes), Stopped, NoLink, "the module stops"},
		{Following, CmdPrim, always, do(CloseVolumes, Override, OpenPrimary), Opening, NoLink,
			"an operator made this node primary"},

		{Standby, FollowLost, unwanted, do(CloseVolumes), Stopped, NoLink, "it stops with its primary"},
		{Standby, FollowLost, always, nil, Following, NoLink, "the primary's connection is gone; the data here are complete"},
		{Standby, Look, orphan, do(CloseVolumes, Kill), Killing, NoLink,
			"a {workload} runs here although the right to write is not here: it is ended"},
		{Standby, Look, bereft, do(CloseVolumes), Stopped, NoLink, "it stops with its primary, which is silent"},
		{Standby, Look, silent, do(CloseVolumes, Ask), Asking, NoLink,
			"the primary is silent and the data here are complete: take over"},
		{Standby, Outvoted, always, do(CloseVolumes, OpenSecondary), Following, NoLink,
			"the primary goes on alone; the data here are outdated until its resync"},
		{Standby, TakeOver, always, do(CloseVolumes, OpenPrimary), Opening, NoLink, "the peer has handed over"},
		{Standby, StorageFailed, impaired, do(CloseVolumes), Waiting, NoLink,
			"this node cannot save what it decides: it takes no part until it can"},
		{Standby, StorageFailed, always, do(CloseVolumes), Waiting, NoLink, "the storage here failed"},
		{Standby, CmdSecond, always, nil, Standby, KeepLink, "it is secondary already"},
		{Standby, CmdStart, always, nil, Standby, KeepLink, "it is started already"},
		{Standby, CmdStop, always, do(CloseVolumes), Stopped, NoLink, "stopped by an operator; the primary goes on alone"},
		{Standby, CmdStopAll, always, nil, Standby, KeepLink, "the module stops: it ends with its primary"},
	}
}

func endingRows() []Row {
	return []Row{
		{Stopping, Down, always, do(CloseVolumes), Stopped, NoLink, "the {workload} is off and the volumes are closed"},
		{Stopping, Timeout, always, do(Kill), Stopping, KeepLink, "the {guest} did not shut down in time: end it"},
		{Stopping, PeerLost, always, do(Ask), Stopping, NoLink,
			"the peer was lost: ask to go on alone until the {guest} is down"},
		{Stopping, Granted, always, do(GoAlone), Stopping, NoLink, "the right to go on alone was granted"},
		{Stopping, LinkLost, always, nil, Stopping, NoLink, "the peer was lost; it was not needed"},
		{Stopping, Deposed, always, do(CloseVolumes, Kill), Killing, NoLink, "the peer holds a newer epoch"},

		{Killing, Down, wanted, nil, Waiting, NoLink, "the {workload} is ended"},
		{Killing, Down, always, nil, Stopped, NoLink, "the {workload} is ended"},
		{Killing, CmdStopAll, always, nil, Killing, KeepLink, "stopped by an operator"},
		{Killing, CmdStop, always, nil, Killing, KeepLink, "stopped by an operator"},
	}
}

// index finds the rows of a phase and event in order.
var index = sync.OnceValue(func() *[phaseCount][eventCount][]Row {
	var out [phaseCount][eventCount][]Row
	for _, r := range Table() {
		out[r.From][r.On] = append(out[r.From][r.On], r)
	}
	return &out
})

func mirrorIndex(p Phase, e Event) []Row { return index()[p][e] }
