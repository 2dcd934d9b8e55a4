// Package netns makes a LAN on one computer: a network namespace per node, a switch namespace with a bridge per
// network, and faults between them (cuts by node, network, direction or TCP port, random loss, slow links, links
// without carrier).
//
// It needs root and Linux. Nothing outside the namespaces is touched. The kernels in use here have no netem: delay
// comes only from the queue of a slow link.
package netns
