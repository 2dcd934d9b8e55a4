// Package netns makes a LAN on one computer: a network namespace per node, a switch namespace with a bridge per
// network, and faults between them (cuts by node, network, direction or TCP port, random loss, slow links, links
// without carrier).
//
// It needs root and Linux with veth, bridge, tbf and nftables for bridges, and the programs ip, nft and, for
// Capture, tcpdump. Names PREFIX-* below /run/netns belong to it: whatever has such a name and is not in use is
// removed with its processes. If the process dies the namespaces stay, until the next New of that prefix.
// Nothing else outside the namespaces is touched. The kernels in use here have no netem: delay comes only from
// the queue of a slow link.
package netns
