// Package hyperv runs virtual machines through Hyper-V's WMI provider, on Windows.
//
// Each operation initializes COM and connects on a goroutine locked to its own
// thread, and lets go of both afterwards: nothing is shared, and a panic of the
// WMI library, which it uses for what other libraries return as errors, becomes
// ErrUnavailable. Only the library's lowest layer is imported; importing the ones
// above it would connect, and panic, while the program is being loaded.
//
// Hyper-V keeps no account of why a VM stopped that WMI could read. A VM that goes
// off without Duet is reported as shut down by its guest: Hyper-V itself restarts
// VMs whose worker process failed, so such an end is nearly always on purpose.
//
// It starts, stops and watches VMs. It is no Protector, Locator or Inspector: definitions are read and not stored,
// disks are not replicated, and package cmd/duetd puts an Unavailable in the place of what is missing. Nothing runs
// vmtest on it.
//
//	state.go               states and the changes between two looks: pure, built everywhere
//	wmi_windows.go         one call: thread, session, limit, errors
//	hypervisor_windows.go  the contract; watch_windows.go its Watch, which looks each second
package hyperv
