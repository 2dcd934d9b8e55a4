package vmmanager

import "slices"

// Level says what a Finding means for a VM.
type Level string

// The levels, from the least to the worst.
const (
	Note    Level = "note"    // it runs, and something about it is worth knowing
	Warning Level = "warning" // it runs, but not as it does elsewhere, or it may not
	Refused Level = "refused" // it would not run
)

// Finding is one thing that a host, or Duet, has to say of a VM before the VM is needed there.
type Finding struct {
	Level Level `json:"level"`
	// Code is the kind of finding, for programs: it stays when words change.
	Code string `json:"code"`
	// About is the part of the VM, such as "disk hdc" or "interface 1"; empty: the whole VM.
	About string `json:"about,omitempty"`
	// Fact is what was found, in words for an admin.
	Fact string `json:"fact"`
	// Remedy is what mends it on that host: a command where there is one.
	Remedy string `json:"remedy,omitempty"`
}

// OnItsHost stands in a Remedy for the host whose definition of the VM is to be edited.
const OnItsHost = "on the host where the VM is"

// String is the finding in a sentence, without its remedy.
func (f Finding) String() string {
	if f.About == "" {
		return f.Fact
	}
	return f.About + ": " + f.Fact
}

// Whole is the finding in a sentence, with its remedy.
func (f Finding) Whole() string {
	if f.Remedy == "" {
		return f.String()
	}
	return f.String() + ": " + f.Remedy
}

// Worst returns the findings of the worst level first, otherwise in their order.
func Worst(all []Finding) []Finding {
	rank := map[Level]int{Refused: 0, Warning: 1, Note: 2}
	out := slices.Clone(all)
	slices.SortStableFunc(out, func(a, b Finding) int { return rank[a.Level] - rank[b.Level] })
	return out
}

// Refusals returns the findings that keep the VM from running.
func Refusals(all []Finding) []Finding {
	return slices.DeleteFunc(slices.Clone(all), func(f Finding) bool { return f.Level != Refused })
}
