// Package workload has what modules run: a VM, or nothing. Each is an appmodules.Workload
// and keeps its contract; who runs it, package engine, knows none of them.
package workload
