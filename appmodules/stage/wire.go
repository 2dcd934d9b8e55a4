package stage

import (
	"path/filepath"

	"duet/appmodules"
)

// The orders are HTTP on a unix socket of this host: POST /OP with an order, answered by an answer. Both programs are
// of one release, but while a host is upgraded they may not be: a key keeps its meaning.

// SocketName is the file name of the socket in the directory of duetd apps.
const SocketName = "apps.sock"

// The operations: those of workload.Stage, and Make of the Room.
const (
	opUp    = "up"
	opStart = "start"
	opStop  = "stop"
	opKill  = "kill"
	opMake  = "make"
)

// order is what is asked of one stage of a module, or of the Room for it.
type order struct {
	Module appmodules.Module `json:"module"`
	Stage  int               `json:"stage"`           // counted from the first
	Image  string            `json:"image,omitempty"` // of Make
}

// answer is what came of it.
type answer struct {
	Up    bool   `json:"up,omitempty"`
	Whole bool   `json:"whole,omitempty"`
	Error string `json:"error,omitempty"` // empty: none
}

// maxOrder is the size of an order in bytes: a module's document and more.
const maxOrder = 1 << 20

// labels are how people know the stages of an application, first to last: Room.Of makes them in this order.
func labels(a appmodules.Application) (all []string) {
	for range a.Disks {
		all = append(all, "the directories")
	}
	for _, p := range a.Addresses {
		all = append(all, "address "+p.Addr().String())
	}
	for _, p := range a.Run {
		all = append(all, p.Name)
	}
	return all
}

// disks is the directory of the block devices below that of duetd apps.
func disks(dir string) string { return filepath.Join(dir, "disks") }
