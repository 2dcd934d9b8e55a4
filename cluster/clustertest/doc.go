// Package clustertest has a network in memory that can be cut, slowed and made lossy, for
// the tests of package cluster's subfolders, and what else several tests need.
package clustertest
