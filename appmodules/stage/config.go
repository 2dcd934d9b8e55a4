package stage

import "log/slog"

// Dir is where duetd apps keeps its socket, mounts and notes.
const Dir = "/run/duet-apps"

// Config says what applications work with; all fields are needed.
type Config struct {
	Dir     string   // in memory, gone after a reboot, of root's only: the socket, mounts, and what was started
	Volumes string   // directory of the volumes' sockets
	Program []string // see host.Loop
	Logger  *slog.Logger
}
