// Package proc runs the processes of one node of a cluster on one computer, and pulls its plug.
//
// A node is a process-id, mount, host-name and IPC namespace, in a network namespace of the caller's choice. Switching
// it off kills its first process, upon which the kernel kills all others: at once, and with no way to escape by forking
// or by changing the session. When the process that runs the test dies, its nodes die too.
//
// It needs root and Linux.
package proc
