package machine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
)

// Release is a Debian release, by its number.
type Release int

// The releases that Duet supports.
const (
	Debian12 Release = 12
	Debian13 Release = 13
)

// Releases are all of them, the oldest first.
var Releases = []Release{Debian12, Debian13}

func (r Release) String() string { return fmt.Sprintf("debian%d", int(r)) }

// Codename is the name by which mirrors know the release, "" for one that is none of Releases.
func (r Release) Codename() string {
	return map[Release]string{Debian12: "bookworm", Debian13: "trixie"}[r]
}

// source is a line of apt's list.
type source struct {
	uri   string
	suite string
}

// sources returns where this computer's apt gets Debian from, for another release of it. The first is the
// release itself; updates and security fixes follow. It asks apt what it has lists of, so apt-get update must
// have been run here once, and this must be a Debian.
func (r Release) sources(ctx context.Context) ([]source, error) {
	const format = "$(ORIGIN)|$(COMPONENT)|$(CODENAME)|$(REPO_URI)"
	out, err := run(exec.CommandContext(ctx, "apt-get", "indextargets", "--format", format, "Identifier: Packages"))
	if err != nil {
		return nil, err
	}
	found := retarget(string(out), r.Codename())
	if len(found) == 0 {
		return nil, errors.New("apt knows no mirror of Debian here: run apt-get update")
	}
	return found, nil
}

// retarget reads lines ORIGIN|COMPONENT|CODENAME|URI. The code name of a part of a release is CODENAME-updates,
// say. A mirror that serves one release serves the other at the same address. Backports are left out: an admin
// has to ask for them.
func retarget(lines, codename string) []source {
	var found []source
	for _, line := range strings.Split(lines, "\n") {
		f := strings.Split(line, "|")
		if len(f) != 4 || f[0] != "Debian" || f[1] != "main" {
			continue
		}
		_, part, isPart := strings.Cut(f[2], "-")
		s, at := source{uri: f[3], suite: codename}, 0
		if isPart {
			s.suite, at = codename+"-"+part, len(found)
		}
		if part != "backports" && !slices.Contains(found, s) {
			found = slices.Insert(found, at, s)
		}
	}
	if len(found) > 0 && found[0].suite != codename {
		return nil
	}
	return found
}

// run executes a command to its end and returns its standard output; the error carries the end of what it said.
func run(cmd *exec.Cmd) ([]byte, error) {
	var out, fault bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &fault
	if err := cmd.Run(); err != nil {
		said := append(bytes.TrimSpace(out.Bytes()), append([]byte{'\n'}, bytes.TrimSpace(fault.Bytes())...)...)
		return nil, fmt.Errorf("run %s: %w: %s", cmd.Args[0], err, said[max(0, len(said)-4<<10):])
	}
	return out.Bytes(), nil
}
