// Package proc runs the processes of one node of a cluster on one computer, and pulls its plug.
//
// A node is a process-id, mount, host-name and IPC namespace, in a network namespace of the caller's choice. Switching
// it off kills its first process, upon which the kernel kills all others: at once, and with no way to escape by forking
// or by changing the session. When the process that runs the test dies, its nodes die too.
//
// It needs root and Linux with pidfd and setns of several namespaces at once (5.8). It leaves nothing but what
// its Binds and outputs have been written to.
//
// Kinder than a computer that loses power: the page cache, and the connections that the kernel closes in order.
package proc
