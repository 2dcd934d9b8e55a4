// Package doctor judges whether the nodes of a cluster can do their work: facts in,
// findings out, each with its remedy. It is pure. Its folder host gathers the facts of
// one computer; the daemon adds its own and asks the other nodes for theirs.
//
// # What it promises, and what not
//
// Judge never fails, changes nothing and gives the same findings for the same facts, in the same order: node by
// node, then the cluster. A remedy is text for a person, with the commands in backquotes; nothing here runs one. A
// fact that is not there is no finding: what could not be looked at stands in Facts.Unlooked.
//
// Nodes of two releases send each other facts. A field that an older one does not know stays zero, so zero has to
// mean "not known" or "nothing wrong" in whatever is added; a field keeps its name and its unit.
//
// # Files, in reading order
//
// facts.go is what goes in, finding.go what comes out and the order of it; host.go judges one computer, network.go
// the ways between two, together.go all nodes at once. A new check is a field of Facts, its gathering in folder host
// or package survey, and a function that node or Judge calls.
package doctor
