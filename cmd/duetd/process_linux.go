package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"

	"duet/appmodules/workload"
	"duet/blockrepl/fdstore"
	"duet/cmd/node"
	"duet/vmmanager"
	"duet/vmmanager/libvirt"
)

// niceness puts the daemon before ordinary work: a late heartbeat costs a failover. Its unit says the same; a
// daemon that is started otherwise does it itself.
const niceness = -10

// urgent locks the daemon's memory and raises its priority. Without the right to do so it works all the same, and
// logs what may come of that.
func urgent(log *slog.Logger) {
	// Only what is touched: the store maps large sparse files.
	if err := unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE | unix.MCL_ONFAULT); err != nil {
		log.Warn("memory cannot be locked: under memory pressure heartbeats may be late", "err", err)
	}
	if err := raise(); err != nil {
		log.Warn("priority cannot be raised: on a busy host heartbeats may be late", "err", err)
	}
}

// stayInMemory locks the guard's memory: all of its program, so that it works while the disk with it hangs, and of what
// it will use, what it touches. Its priority is its unit's.
func stayInMemory(log *slog.Logger) {
	err := unix.Mlockall(unix.MCL_CURRENT)
	if err == nil {
		err = unix.Mlockall(unix.MCL_FUTURE | unix.MCL_ONFAULT)
	}
	if err != nil {
		log.Warn("memory cannot be locked: under memory pressure guests may be paused late", "err", err)
	}
}

// raise gives each thread the niceness. The kernel keeps one per thread, and a new thread has that of the one that made
// it; so it looks until there is none that it has not met. One that was being made has the niceness that its maker had
// when that began, and may be listed a moment later: so nothing new is believed only the third time.
func raise() error {
	raised := map[int]bool{}
	// A thread that ends meanwhile (ESRCH) needs nothing.
	for quiet := 0; quiet < 3; quiet++ {
		before := len(raised)
		threads, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return err
		}
		for _, t := range threads {
			id, err := strconv.Atoi(t.Name())
			if err != nil || raised[id] {
				continue
			}
			if err := unix.Setpriority(unix.PRIO_PROCESS, id, niceness); err != nil && !errors.Is(err, unix.ESRCH) {
				return err
			}
			raised[id] = true
		}
		if len(raised) > before {
			quiet = -1
		}
		time.Sleep(time.Millisecond)
	}
	return nil
}

// hypervisor uses libvirt. A libvirtd that is away is waited for; where libvirt is not installed the node takes
// part all the same and says so: each call of it is refused with the reason. The second result closes it.
func hypervisor(uri string, log *slog.Logger) (workload.Hypervisor, func()) {
	hv, err := libvirt.New(libvirt.Config{URI: uri, Logger: log})
	if err != nil {
		log.Error("no VM can run on this node", "err", err)
		return vmmanager.Unavailable{Err: err}, func() {}
	}
	return hv, func() { _ = hv.Close() } // the process ends
}

// sockets are those of volumes that an earlier run has left with systemd, and where this one leaves its own.
func sockets(log *slog.Logger) node.Sockets { return fdstore.Open(log) }

// ready tells systemd and feeds its watchdog until ctx ends, at a third of the time that the unit allows. That this
// goroutine runs is all it vouches for: systemd then starts a process again that stands still as a whole. Whether
// modules work is looked at for the hardware watchdog (package node).
func ready(ctx context.Context, log *slog.Logger) {
	if _, err := daemon.SdNotify(false, daemon.SdNotifyReady); err != nil {
		log.Warn("systemd cannot be told that the daemon is ready", "err", err)
	}
	every, err := daemon.SdWatchdogEnabled(false)
	if err != nil || every == 0 {
		<-ctx.Done()
		return
	}
	tick := time.NewTicker(every / 3)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if _, err := daemon.SdNotify(false, daemon.SdNotifyWatchdog); err != nil {
				log.Warn("systemd's watchdog cannot be fed", "err", err)
			}
		case <-ctx.Done():
			return
		}
	}
}

// computerStops asks systemd whether the daemon ends because everything does. No answer within two seconds is a no:
// the VMs are left as they are, as by a restart of the daemon.
func computerStops(log *slog.Logger) bool {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	// Its exit code is not 0 in any state but "running".
	said, err := exec.CommandContext(ctx, "systemctl", "is-system-running").Output()
	if len(said) == 0 && err != nil {
		log.Info("systemd does not say whether this computer goes down", "err", err)
	}
	return strings.TrimSpace(string(said)) == "stopping"
}

// stopping tells systemd that the end is on purpose. Nothing follows from an error.
func stopping() { _, _ = daemon.SdNotify(false, daemon.SdNotifyStopping) }
