// Package vip puts virtual addresses on this host's interfaces, tells the network so, and takes them off again.
//
// It knows nothing of who may have an address: whoever calls Take has the right to, and gives that up only after Drop
// has returned nil. It keeps nothing: what the kernel has is what there is.
package vip
