package stage

import (
	"log/slog"

	"duet/appmodules"
)

// Config says what applications work with; all fields are needed.
type Config struct {
	Dir     string   // in memory, gone after a reboot: where volumes are mounted, and what was started
	Program []string // see host.Loop
	// Socket is where a volume of a module is served.
	Socket func(m appmodules.Module, v appmodules.Volume) string
	Logger *slog.Logger
}
