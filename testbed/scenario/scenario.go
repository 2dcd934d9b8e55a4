// Package scenario runs whole clusters of real daemons and real VMs through faults
// and checks that the promises of docs/safety.md hold. The tests are named after what an
// operator would report.
package scenario
