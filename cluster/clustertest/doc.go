// Package clustertest has what tests of package cluster's subfolders share: a
// network in memory that can be cut, slowed and made lossy, and the laws that
// every cluster.State must keep.
package clustertest
