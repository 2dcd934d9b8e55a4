package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"duet/testbed/testcluster"
)

// again is how soon a daemon is started that has died, as its unit would have it.
const again = 200 * time.Millisecond

// unit is what systemd is to the daemon of a host: it starts it again whenever it ends, and stops and starts it when
// the host's systemctl says so. That writes files, and waits for others: see systemctl.
type unit struct{ h *testcluster.Host }

// dir is the directory of the unit's files.
func (u unit) dir() string { return filepath.Join(filepath.Dir(u.h.Log()), "systemd") }

// Files in it: stop is there while the daemon is to stay away, stopped while it does.
const (
	stopFile    = "stop"
	stoppedFile = "stopped"
)

// run serves the unit until ctx ends. It ends also when the host is off, or the daemon cannot be started. It is for a
// host whose daemon was started once.
func (u unit) run(ctx context.Context) {
	tick := time.NewTicker(again)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if err := u.look(ctx); err != nil {
			if ctx.Err() == nil {
				fmt.Fprintln(os.Stderr, "demo:", err)
			}
			return
		}
	}
}

// look does what there is to do now.
func (u unit) look(ctx context.Context) error {
	_, err := os.Stat(filepath.Join(u.dir(), stopFile))
	away := !errors.Is(err, fs.ErrNotExist)
	ended := false
	select {
	case <-u.h.Duetd().Done():
		ended = true
	default:
	}
	switch {
	case !away && ended:
		return u.h.LaunchDuetd()
	case away && !ended:
		return u.h.StopDuetd(ctx)
	case away:
		return os.WriteFile(filepath.Join(u.dir(), stoppedFile), nil, 0o600)
	}
	return nil
}

// systemctl is the host's: what of systemctl the README and duet's own words tell to type of duetd. It returns when
// that is done: a daemon has started when it says how the cluster stands, which need not be well.
const systemctl = `#!/bin/sh
cd '%s' || exit 1
stop() { : >%[2]s; until [ -e %[3]s ]; do sleep 0.1; done; }
start() {
	rm -f %[2]s %[3]s
	for i in $(seq 300); do
		duet cluster status >/dev/null 2>&1
		case $? in 0 | 10 | 11) return 0 ;; esac
		sleep 0.1
	done
	echo "duetd does not answer" >&2
	exit 1
}
case "$*" in
"stop duetd" | "stop duetd.service" | "disable --now duetd") stop ;;
"start duetd" | "start duetd.service" | "enable --now duetd") start ;;
"restart duetd" | "restart duetd.service") stop && start ;;
*) echo "systemctl: there is no systemd on this host of the demo: say stop, start or restart duetd" >&2; exit 1 ;;
esac
`

// install makes the host's systemctl and returns its directory.
func (u unit) install() (string, error) {
	if err := os.MkdirAll(u.dir(), 0o700); err != nil {
		return "", err
	}
	text := fmt.Sprintf(systemctl, u.dir(), stopFile, stoppedFile)
	return u.dir(), os.WriteFile(filepath.Join(u.dir(), "systemctl"), []byte(text), 0o755)
}

// door makes a program, named after a host, that runs a command on that host, in the directory of its caller. It is
// named by the process id of this boot of the host, so it leads nowhere after the next one. It lies beside duet and
// duetd.
func door(l *testcluster.Cluster, name string) (remove func(), err error) {
	path, err := l.Hosts[name].Node.Outside("/")
	if err != nil {
		return nil, err
	}
	var pid int
	if _, err := fmt.Sscanf(path, "/proc/%d/root", &pid); err != nil {
		return nil, fmt.Errorf("find host %s in %s: %w", name, path, err)
	}
	tools, err := unit{l.Hosts[name]}.install()
	if err != nil {
		return nil, err
	}
	file := filepath.Join(l.Bin(), name)
	text := fmt.Sprintf("#!/bin/sh\n[ $# -gt 0 ] || set -- sh\nexec nsenter -t %d -a env PATH=%s:%s:\"$PATH\" \\\n"+
		"\tsh -c 'cd \"$0\" 2>/dev/null; exec \"$@\"' \"$PWD\" \"$@\"\n", pid, tools, l.Bin())
	if err := os.WriteFile(file, []byte(text), 0o755); err != nil {
		return nil, err
	}
	return func() { _ = os.Remove(file) }, nil // the next demo writes it anew
}
