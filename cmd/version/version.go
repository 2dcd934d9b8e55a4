// Package version says which Duet a program was built from.
package version

import "runtime/debug"

// stamp is set by the linker in what `make` builds: -X duet/cmd/version.stamp=0.8.0~412+g0123456789ab.
var stamp string

// String is the version that make stamped into this program. Without one it is the commit that the go command knows
// of, in 12 digits and with "+changes" where files differed from it, else the version of the main module: "(devel)"
// where that has none. It is for eyes and logs: nothing is decided by it. It does not change while the program
// runs.
func String() string {
	if stamp != "" {
		return stamp
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "(devel)"
	}
	v, dirty := info.Main.Version, ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision" && len(s.Value) >= 12:
			v = s.Value[:12]
		case s.Key == "vcs.modified" && s.Value == "true":
			dirty = "+changes"
		}
	}
	return v + dirty
}
