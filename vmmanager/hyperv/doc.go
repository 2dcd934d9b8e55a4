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
package hyperv
